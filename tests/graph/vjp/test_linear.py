"""Gradients of products of matrices and tensors."""

from __future__ import annotations

import pytest

from probegen.errors import UnsupportedOpsError
from tests.graph.vjp.harness import Case, check, tf, uniform, written

STACKS = [
    ((2, 3), (3, 4)),
    ((2, 5, 3), (3, 4)),
    ((2, 5, 3), (2, 3, 4)),
    ((2, 1, 5, 3), (6, 3, 4)),
    ((2, 3), (5, 3, 4)),
    ((2, 3), (2, 5, 3, 4)),
    ((1, 5, 3), (2, 3, 4)),
]
VECTORS = [((3,), (3,)), ((3,), (3, 4)), ((2, 3), (3,)), ((3,), (2, 3, 4)), ((2, 5, 3), (3,))]

MATMULS = [
    Case(op="MatMul", inputs=[uniform(*a), uniform(*b, seed=1)], tensorflow=tf("matmul"))
    for a, b in STACKS
] + [Case(op="MatMul", inputs=[uniform(*a), uniform(*b, seed=1)]) for a, b in VECTORS]

GEMMS = [
    Case(
        op="Gemm",
        inputs=[
            uniform(*((3, 2) if trans_a else (2, 3))),
            uniform(*((4, 3) if trans_b else (3, 4)), seed=1),
            *([] if c is None else [uniform(*c, seed=2)]),
        ],
        attributes={"transA": trans_a, "transB": trans_b, "alpha": 0.5, "beta": 1.5},
        batch={0: {trans_a: "batch"}},
        name=f"{trans_a}{trans_b} c {c}",
    )
    for trans_a, trans_b, c in (
        (0, 0, (4,)),
        (0, 1, (2, 4)),
        (1, 0, ()),
        (1, 1, (2, 1)),
        (0, 0, None),
    )
] + [Case(op="Gemm", inputs=[uniform(2, 3), uniform(3, 4), uniform(4)])]


def _einsum(equation, *shapes, **more):
    def by_tensorflow(*operands):
        return tf("einsum")(equation, *operands)

    return Case(
        op="Einsum",
        inputs=[uniform(*shape, seed=i) for i, shape in enumerate(shapes)],
        attributes={"equation": equation},
        tensorflow=by_tensorflow,
        name=equation,
        **more,
    )


EINSUMS = [
    _einsum("abc,cde->abde", (2, 3, 4), (4, 2, 3)),
    _einsum("aecd,abcd->acbe", (2, 3, 2, 5), (2, 4, 2, 5)),
    _einsum("acbe,aecd->abcd", (2, 2, 4, 3), (2, 3, 2, 5)),
    _einsum("ij->ji", (2, 3)),
    _einsum("ij->j", (2, 3)),
    _einsum("ij,k->k", (2, 3), (4,)),
    _einsum("i,j->ij", (2,), (3,)),
    _einsum("ij,jk,kl->il", (2, 3), (3, 4), (4, 2)),
    _einsum("...ij,...jk->...ik", (2, 1, 3, 4), (1, 5, 4, 2)),
    _einsum("...ij,jk->ik...", (2, 3, 4), (4, 2)),
    _einsum("b i, b i -> b", (2, 3), (2, 3)),
    _einsum("ba,cb", (2, 3), (4, 2)),
    # A diagonal, of one operand, beside others, of three axes at once, under an ellipsis.
    _einsum("ii->i", (3, 3)),
    _einsum("aii->ai", (2, 3, 3)),
    _einsum("iaij,jb->abi", (3, 2, 3, 4), (4, 5)),
    _einsum("aaa->a", (3, 3, 3)),
    _einsum("ii", (4, 4)),
]

DETERMINANTS = [
    Case(op="Det", inputs=[uniform(*shape)], batch={} if len(shape) == 2 else None, open_all=False)
    for shape in ((1, 1), (2, 2), (3, 3), (2, 5, 4, 4))
]

CASES = [*MATMULS, *GEMMS, *EINSUMS, *DETERMINANTS]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_gradient(case):
    check(case)


def test_a_dense_layer_takes_one_gemm():
    dense = Case(op="MatMul", inputs=[uniform(2, 3), uniform(3, 4)], constants={1})
    assert written(dense) == ["Gemm"]
    dense = Case(op="Gemm", inputs=[uniform(2, 3), uniform(3, 4), uniform(4)], constants={1, 2})
    assert written(dense) == ["Gemm"]


def test_a_dense_layer_over_a_sequence_transposes_the_weight_alone():
    dense = Case(op="MatMul", inputs=[uniform(2, 5, 3), uniform(3, 4)], constants={1})
    assert written(dense) == ["Transpose", "MatMul"]


def test_a_shared_weight_gets_one_product_of_all_rows():
    weight = Case(op="MatMul", inputs=[uniform(2, 5, 3), uniform(3, 4)], wrt=[1])
    assert written(weight) == ["Reshape", "Reshape", "Gemm"]


def test_a_permutation_is_a_transpose():
    assert written(_einsum("ijk->kij", (2, 3, 4))) == ["Transpose"]


def test_large_determinants_are_refused():
    case = Case(op="Det", inputs=[uniform(9, 9)])
    with pytest.raises(UnsupportedOpsError, match="Det: its matrices are not known to have at"):
        written(case, {})
