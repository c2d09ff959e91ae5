"""Every kernel, every variant, on every device, against its NumPy twin in float64."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import numpy as np
import pytest
from kernel_cases import CASES
from kernel_runs import Case, assert_arrays_close, assert_close, features, run, variants_of
from kernel_table import normal

from trainer import kernels
from trainer.devices import Device
from trainer.devices.native import UNITS_WORKGROUP_BYTES, NativeDevice
from trainer.devices.reference import twin
from trainer.errors import DeviceError
from trainer.ops.matmul import matmul
from trainer.plan import Plan

SHADERS = Path(__file__).parent.parent / "shaders"
BY_VARIANT = [
    pytest.param(case, variant, id=f"{case.name}-{variant}") for case in CASES for variant in case.variants
]


@pytest.mark.parametrize(("case", "variant"), BY_VARIANT)
def test_native_agrees_with_the_twin(case: Case, variant: str, native: Device, reference64: Device) -> None:
    missing = features(case, variant) - set(native.info.enabled)
    if missing:  # that a device is not given what it cannot compute is tested then
        with pytest.raises(DeviceError, match=min(missing)):
            asyncio.run(run(native, case, variant))
        return
    if not case.fits(variant, native.info.units):
        with pytest.raises(Exception, match="const assertion failed"):
            asyncio.run(run(native, case, variant))
        return
    expected = asyncio.run(run(reference64, case, variant))[0]
    got, again = asyncio.run(run(native, case, variant, times=2))
    assert_close(case, got, expected, variant)
    for name in got:
        assert got[name].tobytes() == again[name].tobytes(), f"{case.name}: {name} differs when run again"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_reference_in_float32_agrees_with_float64(
    case: Case, reference32: Device, reference64: Device
) -> None:
    variant = case.variants[0]
    expected = asyncio.run(run(reference64, case, variant))[0]
    assert_close(case, asyncio.run(run(reference32, case, variant))[0], expected)


@pytest.mark.parametrize("epilogue", ["", "add", "bias and residual"])
def test_a_long_product_is_made_in_parts(epilogue: str, device: Device) -> None:
    """A gradient of weights, or the MLP's second layer: few outputs, long sums."""
    M, N, K = 68, 132, 1100
    plan = Plan(kernels.Tuning(pinned={"matmul": "matmul_tiled"}))
    a, b = plan.tensor("a", (K, M), role="state"), plan.tensor("b", (K, N), role="state")
    out = plan.tensor("out", (M, N), role="state")
    bias, residual = plan.tensor("bias", (N,), role="state"), plan.tensor("residual", (M, N), role="state")
    both = (bias, residual) if epilogue == "bias and residual" else (None, None)
    with plan.program("product"):
        add = epilogue == "add"
        matmul(plan, a, b, out, (M, N, K), transpose_a=True, add=add, bias=both[0], residual=both[1])
    plan.finish()
    assert [dispatch.grid[2] for dispatch in plan.programs["product"].dispatches] == [12, 1]
    values = {tensor: normal(*tensor.shape) for tensor in (a, b, out, bias, residual)}

    async def go() -> np.ndarray:
        executable = await device.compile(plan)
        for tensor, value in values.items():
            await executable.write(tensor, value.tobytes())
        executable.run(["product"])
        return np.frombuffer(await executable.read(out), np.float32)

    more = {"": 0, "add": values[out], "bias and residual": values[bias] + values[residual]}[epilogue]
    expected = values[a].T.astype(np.float64) @ values[b] + more
    assert_arrays_close("out", asyncio.run(go()), expected.ravel().astype(np.float32))


# ---------------------------------------------------------------- completeness


def entry_points() -> list[tuple[str, str, str]]:
    """(kernel, variant, entry point) of all shader files."""
    tables = (kernels.SOFTWARE_VARIANTS, kernels.GPU_VARIANTS)
    owners = {name: op for table in tables for op, names in table.items() for name in names}
    return [
        (f"{owners.get(variant, variant)}.{entry}", variant, entry)
        for variant in kernels.variants()
        for entry in kernels.entry_points(variant)
    ]


ENTRY_POINTS = [pytest.param(*names, id=f"{names[1]}.{names[2]}") for names in entry_points()]


@pytest.mark.parametrize(("kernel", "variant", "entry"), ENTRY_POINTS)
def test_every_entry_point_has_a_twin_and_cases(kernel: str, variant: str, entry: str) -> None:
    assert callable(twin(kernel))
    assert any(case.kernel == kernel and variant in case.variants for case in CASES), "no case runs it"


# Entry points that do at once what some of the naive variant do one after the other
FUSED = {
    "attention.backward": ("backward_query", "backward_key_value"),
    "layernorm.backward_fused": ("backward", "backward_parameters"),
}
WITHIN = {"attention.backward": {"deltas"}}  # what one of those wrote and the other read again
BESIDE = {"attention.backward": {"sums"}}  # of what other kernels do otherwise, column_sum's here


@pytest.mark.parametrize(("kernel", "variant", "entry"), ENTRY_POINTS)
def test_a_variant_binds_what_the_naive_kernel_binds(kernel: str, variant: str, entry: str) -> None:
    naive = [kernels.bindings(kernel.split(".")[0], one) for one in FUSED.get(kernel, (entry,))]
    expected = {name: how for one in naive for name, how in one.items() if name not in WITHIN.get(kernel, ())}
    found = kernels.bindings(variant, entry)
    assert {name: how for name, how in found.items() if name not in BESIDE.get(kernel, ())} == expected


def test_every_case_and_every_preference_names_a_kernel_that_exists() -> None:
    known = {(kernel, variant) for kernel, variant, _ in entry_points()}
    for case in CASES:
        for variant in case.variants:
            assert (case.kernel, variant) in known
    for table in (kernels.SOFTWARE_VARIANTS, kernels.GPU_VARIANTS):
        for op, names in table.items():
            assert op in names, "the naive variant is always there"
            assert set(names) <= set(kernels.variants())
    assert len({case.name for case in CASES}) == len(CASES)


def test_every_shader_file_belongs_to_a_variant() -> None:
    found = {name for variant in kernels.variants() for name in kernels.files(variant)}
    assert found == {path.stem for path in SHADERS.glob("*.wgsl")}
    for variant in kernels.variants():
        assert kernels.files(variant)[0] == variant


def test_a_variant_of_two_files_has_the_kernels_of_both() -> None:
    assert len(kernels.files("attention_units")) == 2
    assert kernels.entry_points("attention_units") == ("forward", "backward_query", "backward_key_value")
    code = kernels.module("attention_units", "backward_query", {}, {})
    assert [name for name in kernels.entry_points("attention_units") if f"fn {name}(" in code] == [
        "backward_query"
    ]


def test_a_module_has_the_functions_that_its_entry_point_reaches_and_no_others() -> None:
    for entry, calls in (("partial", set[str]()), ("total", {"add_up"})):
        code = kernels.module("column_sum", entry, {}, {})
        assert set(re.findall(r"\bfn (\w+)", code)) == {entry} | calls
        assert code.count("@compute") == 1


def test_a_file_is_read_several_times_with_other_names() -> None:
    code = "// Given: M\nconst TWICE = 2u * M;\nfn f(x: Box) -> u32 { return x.M + TWICE + MORE; }"
    assert kernels.suffixed(code) == code
    assert kernels.suffixed(code, "_b") == (
        "// Given: M_b\nconst TWICE_b = 2u * M_b;\nfn f_b(x: Box) -> u32 { return x.M + TWICE_b + MORE; }"
    )
    twice = kernels.source("linear_tiled")
    assert kernels.files("linear_tiled") == (
        "linear_tiled",
        "linear_gradients",
        "matmul_slices",
        "matmul_order",
        "matmul_product",
    )
    assert twice.count("fn multiply_tile_of_x(") == twice.count("fn multiply_tile_of_weight(") == 1
    assert twice.count("var<workgroup> slices_a") == 1


# ---------------------------------------------------------------- WebGPU's default limits

MAX_STORAGE_BUFFERS, MAX_INVOCATIONS, MAX_WORKGROUP_BYTES = 8, 256, 16 << 10
SIZES = {"f32": 4, "u32": 4, "vec2<f32>": 8, "vec2<u32>": 8, "vec4<f32>": 16, "vec4<u32>": 16, "bool": 4}


def evaluate(expression: str, constants: dict[str, int]) -> int:
    """A WGSL const-expression of integers."""
    python = re.sub(r"\b(\d+)u\b", r"\1", expression).replace("/", "//")
    python = re.sub(r"!(?!=)", " not ", python).strip()
    functions = {"min": min, "max": max, "select": lambda no, yes, which: yes if which else no}
    return int(eval(python, {"__builtins__": {}}, {**functions, **constants}))


def constants_of(code: str) -> dict[str, int]:
    """The module's constants that are integers or bools."""
    constants = {"true": 1, "false": 0}
    for name, value in re.findall(r"^const (\w+)(?:: \w+)? = ([^;]+);", code, re.MULTILINE):
        if not re.search(r"\d\.\d|0x", value):
            constants[name] = evaluate(value, constants)
    return constants


def workgroup_bytes(code: str) -> int:
    """Bytes of all `var<workgroup>` of a module; every declaration must be understood."""
    constants, total = constants_of(code), 0
    for declared in re.findall(r"var<workgroup>\s+\w+\s*:\s*([^;]+);", code):
        array = re.fullmatch(r"array<(vec[24]<[fu]32>|\w+),\s*([^>]+)>", declared)
        total += SIZES[array[1]] * evaluate(array[2], constants) if array else SIZES[declared]
    assert code.count("var<workgroup>") == len(re.findall(r"var<workgroup>\s+\w+\s*:\s*[^;]+;", code))
    return total


@pytest.mark.parametrize(("case", "variant"), BY_VARIANT)
def test_kernels_keep_to_the_default_limits(case: Case, variant: str) -> None:
    entry = case.kernel.split(".")[1]
    constants, most = dict(case.constants), MAX_WORKGROUP_BYTES
    if kernels.MATRIX_UNITS in kernels.needs(variant).features:
        assert case.for_units is not None
        constants |= case.for_units(kernels.MatrixUnits())[1]
        most = UNITS_WORKGROUP_BYTES
    arrays = {**case.read, **case.written}.items()
    dtypes = {name: "f16" for name, array in arrays if array is not None and array.dtype == np.float16}
    code = re.sub(r"//[^\n]*", "", kernels.module(variant, entry, constants, dtypes))
    sizes = re.findall(r"@workgroup_size\(([^)]*)\)", code)
    assert len(sizes) == 1, "a module has one entry point"
    threads = [evaluate(size, constants_of(code)) for size in sizes[0].split(",")]
    assert np.prod(threads) <= MAX_INVOCATIONS
    assert workgroup_bytes(code) <= most
    assert len(kernels.bindings(variant, entry)) <= MAX_STORAGE_BUFFERS


def test_workgroup_memory_is_counted() -> None:
    code = "const A: u32 = 8u;\nconst B = A / 2u;\nvar<workgroup> x: array<vec4<f32>, B * 3u>;\n"
    assert workgroup_bytes(code + "var<workgroup> y: u32;") == 4 * 3 * 16 + 4


@pytest.mark.parametrize(
    "code",
    [
        "@compute @workgroup_size(257) fn main() {}",
        "\n".join(f"@group(0) @binding({i}) var<storage, read_write> b{i}: array<u32>;" for i in range(9))
        + "@compute @workgroup_size(1) fn main() {"
        + " ".join(f"b{i}[0] = 1u;" for i in range(9))
        + "}",
    ],
    ids=["invocations", "storage-buffers"],
)
def test_the_device_of_these_tests_has_the_default_limits_only(code: str, native: Device) -> None:
    assert isinstance(native, NativeDevice)
    # wgpu does not count workgroup memory, hence the test above
    with pytest.raises(Exception, match=r"(?i)limit|exceed|too many"):
        native.device.create_compute_pipeline(
            layout="auto", compute={"module": native.module(code), "entry_point": "main"}
        )


def test_variants_are_found() -> None:
    assert variants_of("matmul.multiply")[:2] == ("matmul", "matmul_direct")
    assert variants_of("attention.backward_query")[0] == "attention"
