"""What is measured: functions from a `Bench` to rows, in the order of the page."""
