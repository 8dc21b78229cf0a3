"""Plug-ins for fer-bench, one file each. Keep this file empty: listing plug-ins must import nothing."""
