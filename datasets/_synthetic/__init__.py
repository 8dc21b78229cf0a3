"""Drawing synthetic faces."""
