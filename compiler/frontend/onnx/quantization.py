"""Converters of quantise and dequantise nodes (the QDQ form)."""
