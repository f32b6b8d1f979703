"""Parts of crash.py: who paints, who kills, who compares."""
