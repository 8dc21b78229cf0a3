"""The conformance kit: what every method and every data set must keep, checked on anybody's plug-in."""
