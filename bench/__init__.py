"""One command per figure: `python -m bench.trigger` and so on print one JSON object each."""
