"""One page a suite: tables, claims, images, outliers and protocol in a single HTML file."""

from hqdm_bench.report.page.write import page_inputs, write_suite_page

__all__ = ["page_inputs", "write_suite_page"]
