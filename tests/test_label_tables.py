"""Names of labels from every kind of table that atlases come with.

Witness: the few lines of each file are written out here, and so is what they mean.
"""
from __future__ import annotations

import pandas as pd
import pytest

from normfuse.errors import AtlasError
from normfuse.label_tables import numbered, read_label_table, side_of, table_beside

EXPECTED = {2: ("Left-Insula", "left"), 300: ("Right-Insula", "right"),
            70000: ("Brain-Stem", "midline")}
FREESURFER = """#$Id: a comment

#No. Label Name:  R G B A
0 Unknown 0 0 0 0
70000  Brain-Stem   119 159 176 0
2      Left-Insula  245 245 245 0
300    Right-Insula 0 0 255 0
"""
FILES = {
    "bids_dseg.tsv": "index\tname\tabbreviation\tcolor\n300\tRight-Insula\tRI\t#fff\n"
                     "2\tLeft-Insula\tLI\t#eee\n70000\tBrain-Stem\tBS\tn/a\n",
    "region.csv": "Region,Value,volume\nLeft-Insula,2,9.5\nBrain-Stem,70000,3.1\n"
                  "Right-Insula,300,9.4\n",
    "semicolon.csv": "id;label_name\n2;Left-Insula\n300;Right-Insula\n70000;Brain-Stem\n",
    "label_is_a_number.csv": '"label","region"\n"2","Left-Insula"\n"300","Right-Insula"\n'
                             '"70000","Brain-Stem"\n',
    "label_is_a_name.tsv": "index\tlabel\n2\tLeft-Insula\n300\tRight-Insula\n70000\tBrain-Stem\n",
    "floats.tsv": "name\tlabel\nLeft-Insula\t2.0\nRight-Insula\t300.0\nBrain-Stem\t70000.0\n",
    "FreeSurferColorLUT.txt": FREESURFER,
    "no_colours.txt": "2 Left-Insula\n300\tRight-Insula\n70000 Brain-Stem\n",
    "workbench_label.txt": "Left-Insula\n2 1 2 3 255\nRight-Insula\n300 4 5 6 255\nBrain-Stem\n"
                           "70000 7 8 9 255\n",
    "snap.txt": '# ITK-SNAP\n0 0 0 0 0 0 0 "Clear Label"\n2 255 0 0 1 1 1 "Left-Insula"\n'
                '300 0 255 0 1 1 1 "Right-Insula"\n70000 0 0 9 0.5 1 1 "Brain-Stem"\n',
    "spm.xml": "<atlas><data><label><index>2</index><name>Left-Insula</name></label><label>"
               "<index>300</index><name>Right-Insula</name></label><label><index>70000</index>"
               "<name>Brain-Stem</name></label></data></atlas>",
    "fsl_label.xml": '<atlas><header><type>Label</type></header><data><label index="2" x="1">'
                     'Left-Insula</label><label index="300">Right-Insula</label>'
                     '<label index="70000">Brain-Stem</label></data></atlas>',
    "fsl_probabilistic.xml": '<atlas><header><type>Probabilistic</type></header><data>'
                             '<label index="1">Left-Insula</label><label index="299">Right-Insula'
                             '</label><label index="69999">Brain-Stem</label></data></atlas>',
}


@pytest.mark.parametrize("name", FILES)
def test_every_format_gives_the_same_regions(tmp_path, name):
    (tmp_path / name).write_text(FILES[name], encoding="utf-8")
    found = read_label_table(tmp_path / name)
    assert {n: (row["name"], row["hemisphere"]) for n, row in found.iterrows()} == EXPECTED
    assert list(found) == ["name", "hemisphere", "tissue", "lobe"]


def test_a_column_of_sides_goes_before_names_and_tells_twins_apart():
    table = pd.DataFrame({"Label": [1, 2, 3, 4], "Name": ["Insula", "Insula", "Stem", "L_area"],
                          "Hemi": ["L", "rh", "both", ""], "tissue": ["gm", "gm", "", "gm"]})
    found = read_label_table(table)
    assert found["name"].tolist() == ["left Insula", "right Insula", "Stem", "L_area"]
    assert found["hemisphere"].tolist() == ["left", "right", "midline", "left"]
    assert found["tissue"].tolist()[:2] == ["gm", "gm"] and found["tissue"].isna().sum() == 1


def test_a_frame_with_its_numbers_as_index():
    frame = pd.DataFrame({"name": ["a", "b"]}, index=pd.Index([7, 300], name="index"))
    found = read_label_table(frame)
    assert found.index.tolist() == [7, 300] and found["hemisphere"].isna().all()


@pytest.mark.parametrize("name, side", [
    ("ctx-rh-insula", "right"), ("Left_Caudal_Anterior_Cingulate", "left"), ("HIP-rh", "right"),
    ("Corticospinal_tract_L", "left"), ("(parts)_R", "right"), ("Right Cerebral Cortex", "right"),
    ("L G_and_S_frontomargin", "left"), ("Vermis_1_2", None), ("Thal_AV_L", "left"),
    ("leftThalamus", "left"), ("leftover", None), ("Left-to-Right", None), ("l", "left"),
    ("Area_R_4", None), ("", None), ("GM Amygdala_laterobasal group R", "right")])
def test_sides_of_names_in_the_wild(name, side):
    assert side_of(name) == side


@pytest.mark.parametrize("text, message", [
    ("", "t.tsv is empty"),
    ("index\tcolour\n1\tred\n", "such as index, label.*the columns are index, colour"),
    ("index\tname\n1\ta\n1\tb\n", "label 1 occurs twice"),
    ("index\tname\n1.5\ta\n", "a column of label numbers"),
    ("3 a\nhello\n", "the line 'hello' has no number and name"),
])
def test_what_cannot_be_understood_is_refused(tmp_path, text, message):
    (tmp_path / "t.tsv").write_text(text)
    with pytest.raises(AtlasError, match=message):
        read_label_table(tmp_path / "t.tsv")


def test_missing_binary_and_broken_files_are_refused(tmp_path):
    (tmp_path / "b.tsv").write_bytes(b"\x1f\x8b\xff\xfe")
    (tmp_path / "x.xml").write_text("<atlas><data>")
    (tmp_path / "y.xml").write_text("<atlas/>")
    for name, message in (("none.tsv", "cannot be read"), ("b.tsv", "cannot be read"),
                          ("x.xml", "no whole XML"), ("y.xml", "holds no <label>")):
        with pytest.raises(AtlasError, match=message):
            read_label_table(tmp_path / name)


def test_the_table_beside_an_image(tmp_path):
    image = tmp_path / "tpl-MNI_res-02_atlas-Toy_desc-100_dseg.nii.gz"
    assert table_beside(image) is None
    for name in ("tpl-MNI_atlas-Toy_dseg.tsv", "tpl-MNI_atlas-Toy_desc-100_dseg.tsv",
                 "tpl-MNI_atlas-Toy_desc-200_dseg.tsv"):
        (tmp_path / name).touch()
    assert table_beside(image).name == "tpl-MNI_atlas-Toy_desc-100_dseg.tsv"
    (tmp_path / "tpl-MNI_res-02_atlas-Toy_desc-100_dseg.csv").touch()
    assert table_beside(image).suffix == ".csv"


def test_numbers_as_names():
    assert numbered([2, 70000])["name"].tolist() == ["label 2", "label 70000"]
