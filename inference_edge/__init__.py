"""inference_edge"""
