"""The commands of `python -m web`, one a file: each registers its parser and what it runs."""
