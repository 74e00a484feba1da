"""Files that are written where they belong and nowhere else.

Whatever a foreign file calls its photos, one function makes the names of what is written for them (`output_names`);
links do not lead out of the output folder (`check_links`, `output_place`); no output replaces an input
(`check_inputs_kept`); and a file is there whole or not at all (`written_whole`). What is wrong with that, or with
anything else that a user gave, is an `InputError`; numbers are checked by `check_range`.
"""

from output_files.errors import InputError, first_problems
from output_files.inputs import check_inputs_kept
from output_files.links import check_links, output_place
from output_files.names import output_names
from output_files.ranges import check_range
from output_files.whole_file import check_writable, flush, flush_alone, unshared, write_text_whole, written_whole

__all__ = [
    "InputError",
    "check_inputs_kept",
    "check_links",
    "check_range",
    "check_writable",
    "first_problems",
    "flush",
    "flush_alone",
    "output_names",
    "output_place",
    "unshared",
    "write_text_whole",
    "written_whole",
]
