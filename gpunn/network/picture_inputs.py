"""Whether a network's inputs are the pixels of pictures."""

from gpunn.data.picture_records import PictureField, picture_field
from gpunn.network.network import Network


def picture_field_of(network: Network) -> PictureField | None:
    """Return what a network takes for a picture; None if its inputs are no pixels.

    The columns of a table are no pixels, whatever their number, unless the training took them for
    some: they were whole numbers from 0 to 255.
    """
    record = network.training_record
    if network.preparation is not None and record.get("image_shape") is None:
        return None
    return picture_field(record, network.n_inputs)
