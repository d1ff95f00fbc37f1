"""fastText classifiers: training, measuring, scoring."""
