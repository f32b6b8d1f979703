"""The live loop: paint comes in, a thread learns and predicts, tiles go out. Knows neither Qt nor napari."""
