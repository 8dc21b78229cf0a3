"""What a run leaves behind, and the folder that holds it."""
