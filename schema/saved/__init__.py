"""Who asks, as clients see it: a file for each subject, with its types, inputs and fields."""
