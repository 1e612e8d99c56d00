"""A report on a training: one HTML file with its data, curves, errors, calibration, importance of columns, settings."""

from fcnet.tools.report.writing import NAME, SECONDS, report_html, seconds_of_predictions

__all__ = ["NAME", "SECONDS", "report_html", "seconds_of_predictions"]
