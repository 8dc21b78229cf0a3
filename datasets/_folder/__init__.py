"""Classes that a folder of images names itself."""
