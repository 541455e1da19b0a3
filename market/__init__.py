"""The words everything else is written in: values and pure functions, no input or output."""
