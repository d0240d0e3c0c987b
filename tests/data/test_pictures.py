"""Pictures: files of all kinds become grey, folders of them, and ink in the middle of a field."""

import contextlib
import sys

import numpy as np
import pytest

from gpunn.data import formats, load_dataset, picture_folders, pictures
from gpunn.data.picture_fields import BOX, place
from gpunn.data.picture_folders import are_pictures, find_pictures
from gpunn.data.pictures import is_picture_name, read_picture
from gpunn.errors import DataError, MissingPackageError

Image = pytest.importorskip("PIL.Image")

GREY = np.random.default_rng(0).integers(0, 256, (7, 5), np.uint8)


def refusal(function, *arguments):
    with pytest.raises(DataError) as caught:
        function(*arguments)
    assert "\n" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return str(caught.value)


def save(path, values=GREY, mode=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(values))
    (image if mode is None else image.convert(mode)).save(path, **options)
    return path


# --- one picture -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.png", "a.PNG", "a.bmp", "a.gif", "a.tif", "a.TIFF"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_grey_values_stay_as_they_are(tmp_path, name, mode):
    came = read_picture(save(tmp_path / name, mode=mode))
    assert came.dtype == np.uint8
    np.testing.assert_array_equal(came, GREY)


@pytest.mark.parametrize("mode", ["P", "1", "LA", "RGBA"])
def test_modes_of_png(tmp_path, mode):
    values = np.where(GREY > 127, 255, 0).astype(np.uint8)
    np.testing.assert_array_equal(read_picture(save(tmp_path / "a.png", values, mode)), values)


def test_lossy_kinds_are_near(tmp_path):
    smooth = np.add.outer(np.arange(64), np.arange(48) * 2).astype(np.uint8)
    for name in ("a.jpg", "a.JPEG", "a.webp"):
        came = read_picture(save(tmp_path / name, smooth, quality=95))
        assert np.abs(came.astype(int) - smooth).max() <= 8, name


def test_four_colours_of_a_printer(tmp_path):
    came = read_picture(save(tmp_path / "a.jpg", np.full((8, 8), 200, np.uint8), "CMYK"))
    assert np.abs(came.astype(int) - 200).max() <= 3


def test_colours_become_their_luminance(tmp_path):
    pixels = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [10, 200, 30]]], np.uint8)
    # 0.299 R + 0.587 G + 0.114 B
    assert read_picture(save(tmp_path / "a.png", pixels)).tolist() == [[76, 150, 29, 124]]


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_values_of_16_bits(tmp_path, name):
    values = np.array([[0, 257, 65535], [32768, 1000, 128]], np.uint16)
    assert read_picture(save(tmp_path / name, values)).tolist() == [[0, 1, 255], [128, 4, 0]]


@pytest.mark.parametrize("values", [np.array([[0.5, 1]], np.float32), np.array([[1, 70000]], "i4")])
def test_values_of_32_bits_are_refused(tmp_path, values):
    path = save(tmp_path / "a.tif", values)
    assert refusal(read_picture, path).startswith(f"{path}: its pixels are numbers of 32 bits")


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_what_is_transparent_is_white(tmp_path, mode):
    pixels = np.zeros((1, 3, 4), np.uint8)
    pixels[0, :, 3] = (0, 255, 128)
    assert read_picture(save(tmp_path / "a.png", pixels, mode)).tolist() == [[255, 0, 127]]


@pytest.mark.parametrize("name", ["a.png", "a.gif"])
def test_a_transparent_colour_of_a_palette_is_white(tmp_path, name):
    image = Image.new("P", (2, 1))
    image.putpalette([0, 0, 0, 100, 100, 100])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / name, transparency=0)
    assert read_picture(tmp_path / name).tolist() == [[255, 100]]


def test_a_camera_that_was_held_sideways(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn it to the right to see it upright
    came = read_picture(save(tmp_path / "a.png", exif=exif))
    np.testing.assert_array_equal(came, np.rot90(GREY, -1))


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.webp", "a.tif"])
def test_of_an_animation_the_first_picture_is_read(tmp_path, name):
    first, second = (Image.new("L", (4, 3), grey) for grey in (40, 250))
    options = {"lossless": True} if name.endswith("webp") else {}
    first.save(tmp_path / name, save_all=True, append_images=[second], **options)
    assert np.abs(read_picture(tmp_path / name).astype(int) - 40).max() <= 1


def test_the_content_of_a_file_tells_its_kind(tmp_path):
    (tmp_path / "a.jpg").write_bytes(save(tmp_path / "a.png").read_bytes())
    np.testing.assert_array_equal(read_picture(tmp_path / "a.jpg"), GREY)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a picture, or damaged; expected PNG, JPEG, BMP, GIF, TIFF or WebP"),
        (b"hello", "not a picture, or damaged"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture, or damaged"),
        (b"P5 1 1 255 a", "not a picture, or damaged"),
    ],
)
def test_what_is_no_picture(tmp_path, content, message):
    (tmp_path / "a.png").write_bytes(content)
    assert refusal(read_picture, tmp_path / "a.png").startswith(f"{tmp_path / 'a.png'}: {message}")


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.gif", "a.bmp", "a.tif", "a.webp"])
def test_pictures_that_are_cut_short(tmp_path, name):
    values = np.random.default_rng(1).integers(0, 256, (60, 60), np.uint8)
    content = save(tmp_path / name, values).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    assert refusal(read_picture, tmp_path / name).startswith(f"{tmp_path / name}: ")


def test_pictures_that_are_damaged_anywhere(tmp_path):
    rng = np.random.default_rng(2)
    for name in ("a.png", "a.jpg", "a.gif", "a.bmp", "a.tif", "a.webp"):
        good = np.frombuffer(save(tmp_path / name).read_bytes(), np.uint8)
        for _ in range(60):
            bad = good.copy()
            bad[rng.integers(0, len(bad), 3)] = rng.integers(0, 256, 3)
            (tmp_path / name).write_bytes(bad.tobytes())
            with contextlib.suppress(DataError):  # and nothing else
                assert read_picture(tmp_path / name).ndim == 2


@pytest.mark.parametrize("limit", [34, 10])
def test_more_pixels_than_pillow_takes_to_be_harmless(tmp_path, monkeypatch, limit):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    assert refusal(read_picture, save(tmp_path / "a.png")) == (
        f"{tmp_path / 'a.png'}: has more pixels than the {limit} that Pillow takes to be harmless; "
        "make the picture smaller"
    )


def test_a_limit_that_was_taken_away(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    np.testing.assert_array_equal(read_picture(save(tmp_path / "a.png")), GREY)


def test_more_pixels_than_the_memory_takes(tmp_path, monkeypatch):
    path = save(tmp_path / "a.png", np.zeros((3000, 3000), np.uint8))
    monkeypatch.setattr("gpunn.data.files.free_memory", lambda: 10**8)
    assert "more than this machine has memory for; make the picture" in refusal(read_picture, path)


def test_missing_files(tmp_path):
    assert "no such file; check the path" in refusal(read_picture, tmp_path / "a.png")
    assert "is a folder" in refusal(read_picture, tmp_path)


def test_without_pillow(tmp_path, monkeypatch):
    path = save(tmp_path / "a.png")
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'gpunn\[images\]'"):
        read_picture(path)


# --- folders ---------------------------------------------------------------------------------


def save_all(folder, names, values=GREY):
    for name in names:
        save(folder / name, values)
    return folder


@pytest.mark.parametrize("name", ["a.png", "a.JPG", "b.c.jpeg", "x.WebP", "a.tif", "a.tiff"])
def test_names_of_pictures(name):
    assert is_picture_name(name)
    assert are_pictures(name)
    assert not is_picture_name(f"{name}.txt")


def test_folders_are_told_by_what_is_in_them(tmp_path):
    assert are_pictures(str(save_all(tmp_path / "flat", ["a.png"])))
    assert are_pictures(str(save_all(tmp_path / "deep", ["cat/a.png"])))
    assert not are_pictures(str(save_all(tmp_path / "deeper", ["train/cat/a.png"])))
    (tmp_path / "named.png").mkdir()
    assert not are_pictures(str(tmp_path / "named.png"))
    with_idx = save_all(tmp_path / "idx", ["a.png"])
    (with_idx / "t10k-images.idx3-ubyte").write_bytes(b"")
    assert not are_pictures(str(with_idx))


def test_pictures_come_in_natural_order_and_the_rest_is_told(tmp_path):
    save_all(tmp_path, ["10.png", "2.png", "a9.png", "a10.png", ".hidden.png"])
    for name in ("notes.txt", ".DS_Store", "Thumbs.db"):
        (tmp_path / name).write_text("x")
    files = find_pictures(tmp_path)
    assert files.names == ["2.png", "10.png", "a9.png", "a10.png"]
    assert (files.classes, files.passed_over) == (None, ["notes.txt"])
    assert files.notes == ("pictures: passed over what is none: notes.txt",)


def test_of_many_files_that_are_passed_over_three_are_named(tmp_path):
    save_all(tmp_path, ["a.png"])
    for k in range(4):
        (tmp_path / f"{k}.txt").write_text("x")
    assert find_pictures(tmp_path).notes == (
        "pictures: passed over what is none: 0.txt, 1.txt, 2.txt, ...",
    )


def test_numbers_as_classes(tmp_path):
    save_all(tmp_path, ["10/a.png", "9/b.png", "9/a.png"])
    save(tmp_path / "9/c.png", 255 - GREY)
    came = load_dataset(str(tmp_path))
    assert came.labels.tolist() == [9, 9, 9, 10]
    assert (came.class_names, came.value_range, came.image_shape) == (None, (0, 255), (7, 5))
    assert came.inputs.dtype == np.uint8
    np.testing.assert_array_equal(came.inputs[[0, 2]], [GREY.reshape(-1), 255 - GREY.reshape(-1)])
    assert came.description == f"pictures in {tmp_path}"
    assert came.notes == ("pictures: grey, 5 x 7 pixels, and otherwise as they are",)


@pytest.mark.parametrize("folders", [("cat", "dog"), ("1", "two"), ("1", "01"), ("1", "70000")])
def test_words_as_classes(tmp_path, folders):
    save_all(tmp_path, [f"{folder}/{k}.png" for folder in folders for k in range(2)])
    came = load_dataset(str(tmp_path))
    assert came.labels.tolist() == [0, 0, 1, 1]
    assert sorted(came.class_names) == sorted(folders)


def test_hidden_folders_are_no_classes(tmp_path):
    save_all(tmp_path, ["a/1.png", "b/1.png", ".git/1.png", "__MACOSX/1.png"])
    assert load_dataset(str(tmp_path)).class_names == ("a", "b")


def test_pictures_of_two_sizes(tmp_path):
    save_all(tmp_path, ["a/1.png", "b/1.png"])
    save(tmp_path / "b/2.png", GREY.T)
    assert refusal(load_dataset, str(tmp_path)) == (
        f"{tmp_path}: a/1.png has 5 x 7 pixels, but b/2.png has 7 x 5 pixels; all must have the "
        "same, so resize them"
    )


def test_what_cannot_be_learnt(tmp_path):
    flat = save_all(tmp_path / "flat", ["1.png"])
    expected = "expected a folder with a sub-folder of pictures for each class"
    assert refusal(load_dataset, str(flat)) == f"{flat}: its pictures have no labels; {expected}"
    one = flat / "1.png"
    assert (
        refusal(load_dataset, str(one)) == f"{one}: one picture has no label to learn; {expected}"
    )
    assert "no such file" in refusal(load_dataset, str(flat / "2.png"))


def test_folders_in_disorder(tmp_path):
    save_all(tmp_path / "mixed", ["1.png", "a/1.png"])
    assert "has the picture 1.png and the sub-folder a;" in refusal(
        load_dataset, str(tmp_path / "mixed")
    )
    deep = save_all(tmp_path / "deep", ["a/1.png", "b/c/1.png"])
    assert f"{deep / 'b'}: holds the folder c; expected" in refusal(load_dataset, str(deep))
    lacking = save_all(tmp_path / "lacking", ["a/1.png"])
    (lacking / "b").mkdir()
    assert f"{lacking / 'b'}: holds no pictures; expected" in refusal(load_dataset, str(lacking))


def test_a_folder_of_neither_pictures_nor_idx_files(tmp_path):
    assert refusal(load_dataset, str(tmp_path)) == (
        f"{tmp_path}: holds neither IDX files nor pictures; expected the file "
        "train-images-idx3-ubyte.gz and its labels, or a folder with a sub-folder of pictures for "
        "each class"
    )


def test_a_folder_larger_than_the_memory(tmp_path, monkeypatch):
    save_all(tmp_path, ["a/1.png", "b/1.png"])

    def no_room(path, declared, remedy):
        raise DataError(f"{path}: {declared}; {remedy}")

    monkeypatch.setattr(picture_folders, "check_fits", no_room)
    assert refusal(load_dataset, str(tmp_path)) == (
        f"{tmp_path}: 70; use fewer or smaller pictures"
    )


def test_the_messages_and_help_texts_name_pictures():
    expected = "or a folder with a sub-folder of pictures for each class"
    assert formats.describe_formats().endswith(expected)
    assert refusal(load_dataset, "absent.xyz").endswith(expected)


def test_a_known_data_set_is_no_folder_of_pictures(tmp_path, monkeypatch):
    save_all(tmp_path / "digits", ["a.png"])
    monkeypatch.chdir(tmp_path)
    assert not formats.is_pictures("digits")
    assert formats.is_pictures("./digits")
    assert len(load_dataset("digits").labels) == 1797


# --- ink in a field --------------------------------------------------------------------------


def page(*, paper, pen, top=30, left=80, height=100, width=50, shape=(300, 200)):
    """Return a page with a filled rectangle on it."""
    picture = np.full(shape, paper, np.uint8)
    picture[top : top + height, left : left + width] = pen
    return picture


@pytest.mark.parametrize(("paper", "pen"), [(255, 0), (0, 255), (200, 90), (60, 140), (128, 100)])
def test_ink_becomes_bright_on_black_and_fits_the_box(paper, pen):
    values, was_inverted, was_fitted = place(page(paper=paper, pen=pen), (28, 28), BOX, "p")
    expected = np.zeros((28, 28), np.uint8)
    expected[4:24, 9:19] = (
        255  # the centre of mass, at 9.5 and 4.5, comes to 13.5, as near as can be
    )
    np.testing.assert_array_equal(values, expected)
    assert (was_inverted, was_fitted) == (paper > pen, True)


def test_ink_that_is_wide(tmp_path):
    values = place(page(paper=255, pen=0, height=10, width=80), (28, 28), BOX, "p").values
    assert np.flatnonzero(values.any(axis=0)).tolist() == list(range(4, 24))
    assert np.count_nonzero(values.any(axis=1)) == 2  # 20 / 80 * 10 = 2.5, to even


def test_the_centre_of_mass_is_in_the_middle():
    picture = page(paper=255, pen=0, height=100, width=100)
    picture[30:80, 130:180] = 255  # an L, whose mass is below and to the left of its middle
    values = place(picture, (28, 28), BOX, "p").values.astype(float)
    for axis in (0, 1):
        mass = values.sum(axis=axis)
        assert abs(mass @ np.arange(28) / mass.sum() - 14) <= 0.5


def test_a_field_that_the_box_fills():
    values = place(page(paper=255, pen=0, height=100, width=100), (8, 8), 1.0, "p").values
    assert (values == 255).all()


def test_fields_of_other_sizes_are_in_proportion():
    values = place(page(paper=255, pen=0, height=100, width=100), (56, 42), BOX, "p").values
    assert np.count_nonzero(values.any(axis=0)) == np.count_nonzero(values.any(axis=1)) == 30


def test_what_has_the_size_of_the_field_and_a_dark_ground_stays():
    picture = np.zeros((28, 28), np.uint8)
    picture[2:9, 3:5] = 77
    placed = place(picture, (28, 28), BOX, "p")
    assert placed.values is picture
    assert (placed.was_inverted, placed.was_fitted) == (False, False)


def test_what_has_the_size_of_the_field_and_a_light_ground_does_not():
    assert place(page(paper=255, pen=0, shape=(28, 28), top=2, left=3), (28, 28), BOX, "p")[1:] == (
        True,
        True,
    )


def test_one_pixel_and_thin_lines_keep_their_strength():
    picture = np.full((3000, 3000), 255, np.uint8)
    picture[700, 100:2900] = 0
    picture[100:2900, 700] = 0
    assert place(picture, (28, 28), BOX, "p").values.max() == 255
    assert place(page(paper=9, pen=0, height=1, width=1), (28, 28), BOX, "p").values.max() == 255


@pytest.mark.parametrize("shape", [(28, 28), (1, 1), (300, 200)])
def test_an_empty_picture_is_refused(shape):
    assert refusal(place, np.full(shape, 255, np.uint8), (28, 28), BOX, "p.png") == (
        "p.png: nothing is on it, for all of it has the same grey; expected something drawn on a "
        "plain ground"
    )


def test_pictures_are_loaded_when_they_are_wanted():
    assert not hasattr(pictures, "Image")
