"""`llmdoctor demo`: the whole tool on a tiny model made on the spot."""
