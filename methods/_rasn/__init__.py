"""The parts of RASN: attention, affinity sharing and the de-albino kernel."""
