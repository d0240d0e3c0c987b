# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A notebook with pictures
#
# A network learns to read handwritten digits, and shows what it has learnt. It needs the extra
# `plots`. [The tutorial](tutorial.md) explains each step at more leisure.

# %% [markdown]
# ## The data
#
# 1,797 digits of 8 x 8 pixels come with gpunn. A fifth is held out for testing.

# %%
import matplotlib.pyplot as plt
import numpy as np

import gpunn

digits = gpunn.load_dataset("digits").split(test_fraction=0.2, seed=0)
print(digits.inputs.shape, digits.test_inputs.shape)


# %%
def show(images, titles, colours="gray_r", **limits):
    """Draw images (n, 64) side by side."""
    columns = min(10, len(images))
    rows = -(-len(images) // columns)
    size = columns, 1.25 * rows
    _, axes = plt.subplots(rows, columns, figsize=size, squeeze=False)
    for axis, image, title in zip(axes.flat, images, titles, strict=False):
        axis.imshow(image.reshape(8, 8), cmap=colours, **limits)
        axis.set_title(title, fontsize=10)
    for axis in axes.flat:
        axis.set_axis_off()
    plt.show()


show(digits.inputs[:20], digits.labels[:20])

# %% [markdown]
# ## The network
#
# 64 inputs, 60 hidden units and 10 outputs. Softmax makes probabilities of the outputs, and the
# cross-entropy is the loss that goes with it. Pixels from 0 to 16 become numbers from 0 to 1.

# %%
scaling = gpunn.Scaling.to_range(0, 16)
X = scaling.apply(digits.inputs, "float32")
X_test = scaling.apply(digits.test_inputs, "float32")

network = gpunn.Network(
    [64, 60, 10],
    output_activation="softmax",
    loss="cross_entropy",
    seed=0,
)
network.scaling = scaling
network

# %% [markdown]
# ## Training
#
# 200 digits are kept aside to watch the training. When they are no longer read better, it ends, and
# the best weights come back.

# %%
history = gpunn.fit(
    network,
    X[200:],
    digits.labels[200:],
    epochs=60,
    optimizer="adam",
    learning_rate=0.003,
    validation_data=(X[:200], digits.labels[:200]),
    early_stopping=gpunn.EarlyStopping(patience=8),
)
history

# %%
history.plot()
plt.show()

# %% [markdown]
# ## How good is it?

# %%
test = gpunn.evaluate(network, X_test, digits.test_labels)
print(f"{test.accuracy:.3f} of the test digits are read right")

# %% [markdown]
# Rows are what the digits are, columns are what the network reads. Off the diagonal are its
# mistakes.

# %%
test.plot()
plt.show()

# %% [markdown]
# The mistakes themselves, with what each digit is and what was read:

# %%
read = test.outputs.argmax(axis=1)
wrong = np.flatnonzero(read != digits.test_labels)
show(
    digits.test_inputs[wrong[:10]],
    [f"{digits.test_labels[i]} as {read[i]}" for i in wrong[:10]],
)

# %% [markdown]
# ## What it has learnt
#
# Each hidden unit adds up the pixels, each times a weight. Drawn as a picture, its weights show
# what it looks for: red speaks for it, blue against it.

# %%
gpunn.plot_hidden_units(network)
plt.show()

# %% [markdown]
# From an empty picture, the pixels change until the network sees a digit. This is what it looks for
# in each of them:

# %%
looked_for = network.backquery(np.eye(10), method="gradient", image_shape=(8, 8))
show(looked_for, range(10))

# %% [markdown]
# ## Keep it
#
# The model file holds weights, sizes and scaling. Any other program reads it back, on any device.

# %%
network.save("digits.safetensors")
again = gpunn.Network.load("digits.safetensors")
assert np.array_equal(again.predict(X_test), test.outputs)
print(again)
