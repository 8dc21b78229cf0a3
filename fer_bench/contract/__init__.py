"""What a plug-in promises: cards, parameters, methods, data sets, and how they are found."""
