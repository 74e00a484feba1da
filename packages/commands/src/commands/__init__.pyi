"""What command lines share, so that an app is its flags and ten lines. No torch; rich is imported on first use."""

from .ending import ended as ended
from .ending import next_line as next_line
from .exits import BAD_INPUT as BAD_INPUT
from .exits import DONE as DONE
from .exits import FAILED as FAILED
from .exits import left as left
from .exits import outcome_of as outcome_of
from .flags import Device as Device
from .flags import DeviceFlags as DeviceFlags
from .flags import as_flag as as_flag
from .flags import as_flags as as_flags
from .help import parameters_of as parameters_of
from .logs import logging_to as logging_to
from .logs import messages_to as messages_to
from .logs import warnings_on as warnings_on
from .parsing import Groups as Groups
from .parsing import parse as parse
from .parsing import verb_of as verb_of
from .progress import console as console
from .progress import progress_bar as progress_bar
from .resuming import goes_on as goes_on
from .running import run_command as run_command
from .signals import collected as collected
from .signals import exit_code as exit_code
from .signals import raised as raised
