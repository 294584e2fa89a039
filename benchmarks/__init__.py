"""Speed and weight as ratios against peers; see __main__.py."""
