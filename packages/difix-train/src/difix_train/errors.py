"""What is raised when the user's input is wrong, and when training breaks down."""

from output_files import InputError as InputError
from output_files import first_problems as first_problems
from train_runs.errors import NonFiniteLossError as NonFiniteLossError
