"""Plans for verification: with the gradients that outputs are made of."""

from __future__ import annotations

import dataclasses

from probegen.methods.input_gradient import InputGradient
from probegen.plan.plan import GradientOutput, Plan, TensorRef


def with_raw_gradients(plan: Plan) -> tuple[Plan, dict[str, str]]:
    """Returns a plan that also gives the gradients that outputs are made of, and their names."""
    groups, raw, specs = [], {}, []
    for group in plan.groups:
        added: dict[TensorRef, GradientOutput] = {}
        for output in group.outputs:
            name = output.spec.name
            if output.probe.gives_gradient:
                raw[name] = name
            elif output.probe.samples() is None:
                if output.ref not in added:
                    probe = InputGradient(target=output.probe.target)
                    spec = dataclasses.replace(
                        output.spec,
                        name=f"raw gradient of {name}",
                        shape=(None,) * len(output.axes),
                        axes=output.axes,
                        **probe.described(output.axes),
                    )
                    added[output.ref] = dataclasses.replace(output, spec=spec, probe=probe)
                    specs.append(spec)
                raw[name] = added[output.ref].spec.name
        groups.append(dataclasses.replace(group, outputs=(*group.outputs, *added.values())))
    manifest = plan.manifest.replace(outputs=(*plan.manifest.outputs, *specs))
    return dataclasses.replace(plan, groups=tuple(groups), manifest=manifest), raw
