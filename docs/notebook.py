# ---
# jupyter:
#   jupytext:
#     text_representation:
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A notebook with pictures
#
# Sixty hidden units learn to read handwritten digits, and show what they have learnt.

# %%
import matplotlib.pyplot as plt
import numpy as np

import gpunn

digits = gpunn.load_dataset("digits").split(test_fraction=0.2, seed=0)
digits.inputs.shape, digits.test_inputs.shape
