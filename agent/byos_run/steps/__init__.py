"""The verbs of a run, one file each; a step takes values, returns a value and knows no other step."""
