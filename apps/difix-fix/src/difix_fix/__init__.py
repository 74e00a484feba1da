"""The command `difix-fix`: fix a render, a folder of renders, or a video."""
