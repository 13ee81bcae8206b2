"""From a body to a job about to be stored: every default settled, every combination checked."""

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

from api.adapters import settle_adapters
from api.conditioning import settle_subject
from api.extent import check_extent, settle_extent, settle_format
from api.inputs import Inputs
from api.own_presets import FindPreset, PresetFields, find_own
from api.presets import DEFAULT_PRESET, Preset, PresetBook, Sampling
from api.schemas import JobCreate
from api.tokens import TokenCounter
from shared.catalog import Catalog, ModelSpec
from shared.catalog_entry import PresetValues
from shared.compatibility import find_refusal, find_start_refusal, max_steps, min_steps
from shared.db.presets import StoredPreset
from shared.errors import FieldProblem, InvalidRequest
from shared.job import PresetRef
from shared.request import GenerationRequest
from shared.vocab import GuidanceForm

#: How much changes of a picture that a job starts from, unless it says.
DEFAULT_STRENGTH = 0.75
#: How far ahead the time may be that a job waits for.
MAX_AHEAD = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Resolver:
    """What it takes to settle a request. Nothing is clamped: what cannot work is refused."""

    catalog: Catalog
    presets: PresetBook
    tokens: TokenCounter
    new_seed: Callable[[], int]
    clock: Callable[[], datetime]

    def resolve(
        self, body: JobCreate, inputs: Inputs, find_preset: FindPreset
    ) -> tuple[GenerationRequest, PresetRef]:
        """Settle model, preset, size and seed, and check that the worker can do it.

        What the body says goes first, then what a preset of the tenant says, then what the model
        says of the built-in preset, then that. `inputs` are the uploads that the body names;
        `find_preset` is asked only if it names a preset that is not built in.

        Raises:
            InvalidRequest: It cannot; names each field, why, and what would work.
        """
        wanted = body.preset or DEFAULT_PRESET
        preset = self.presets.find(wanted)
        if preset is not None:
            return self._settle(body, inputs, preset), preset.ref
        own = self._find_own_preset(wanted, find_preset)
        body = PresetFields.model_validate(own.request).lay_under(body)
        request = self._settle(body, inputs, self.presets.default)
        return request, PresetRef(own.name, own.version)

    def check_preset(self, fields: PresetFields) -> None:
        """Check that a preset of a tenant could be used for some job, of some model.

        Raises:
            InvalidRequest: It could not; says why with its own model or the default one.
        """
        first = self.find_model(fields.model or self.catalog.default)
        others = [] if fields.model else [spec for spec in self.catalog if spec is not first]
        refusals = []
        for spec in (first, *others):
            body = fields.lay_under(_begin_body(spec))
            try:
                self._settle(body, Inputs(), self.presets.default)
            except InvalidRequest as refusal:
                refusals.append(refusal)
            else:
                return
        raise refusals[0]

    def _settle(self, body: JobCreate, inputs: Inputs, preset: Preset) -> GenerationRequest:
        spec = self.find_model(body.model or self.catalog.default)
        sampling = preset.resolve(spec, PresetValues.model_validate(_sampling_of(body)))
        strength = body.strength
        if inputs.init_image is not None and strength is None:
            strength = DEFAULT_STRENGTH
        subject = settle_subject(body, spec, self.tokens)
        adapters = settle_adapters(body.adapters or (), spec, self.catalog)
        problems = [
            *check_extent(body, spec),
            *_check_sampling(sampling, spec, allow_undistilled=body.allow_undistilled),
            *_check_guidance(sampling, body, spec),
            *_check_start(sampling, strength, inputs, spec),
            *_check_not_before(body, self.clock()),
        ]
        if problems:
            raise InvalidRequest(problems)
        return GenerationRequest(
            prompt=subject.prompt,
            negative_prompt=subject.negative_prompt,
            class_label=subject.class_label,
            model=spec.id,
            **sampling.model_dump(),
            seed=self.new_seed() if body.seed is None else body.seed,
            **asdict(settle_extent(body, spec)),
            num_outputs=body.num_outputs,
            init_image=inputs.init_image,
            mask=inputs.mask,
            strength=strength,
            adapters=adapters,
            output_format=settle_format(body, spec),
            allow_undistilled=body.allow_undistilled,
            determinism=body.determinism,
            service_class=body.service_class,
            priority=body.priority,
            deadline_s=body.deadline_s,
            not_before=body.not_before,
        )

    def find_model(self, model_id: str) -> ModelSpec:
        """Return a model of the catalog.

        Raises:
            InvalidRequest: There is none of this name; lists those that exist.
        """
        spec = self.catalog.get(model_id)
        if spec is None:
            known = ", ".join(self.catalog.models)
            raise InvalidRequest(
                [FieldProblem("#/model", f"no such model; known: {known}")], code="unknown_model"
            )
        return spec

    def _find_own_preset(self, wanted: str, find_preset: FindPreset) -> StoredPreset:
        is_built_in = self.presets.find(wanted.partition("@")[0]) is not None
        own = None if is_built_in else find_own(wanted, find_preset)
        if own is not None and own.deleted_at is None:
            return own
        if own is None:
            known = ", ".join(f"{p.ref.name}@{p.ref.version}" for p in self.presets)
            detail = f"no such preset; known: {known}, and your own of GET /v1/presets"
        else:
            detail = "this preset was deleted; name another one, or send its values in their fields"
        raise InvalidRequest([FieldProblem("#/preset", detail)], code="unknown_preset")


def _begin_body(spec: ModelSpec) -> JobCreate:
    """Make the least that a job of a model has to say."""
    if spec.labels is None:
        return JobCreate(prompt="anything", model=spec.id)
    return JobCreate(class_label=next(iter(spec.labels)), model=spec.id)


def _sampling_of(body: JobCreate) -> dict[str, object]:
    return {name: getattr(body, name) for name in PresetValues.model_fields}


def _check_sampling(
    sampling: Sampling, spec: ModelSpec, *, allow_undistilled: bool
) -> Iterator[FieldProblem]:
    cell = (sampling.sampler, sampling.schedule, spec)
    refusal = find_refusal(*cell, allow_undistilled=allow_undistilled)
    if refusal is not None:
        where = refusal.instead_schedule
        works = (
            f"{refusal.instead} can"
            if where is sampling.schedule
            else (f"{refusal.instead} on the {where} schedule can")
        )
        yield FieldProblem(f"#/{refusal.field}", f"{refusal.reason}; {works}")
        return
    most = max_steps(*cell, allow_undistilled=allow_undistilled)
    if sampling.steps < (fewest := min_steps(sampling.sampler)):
        yield FieldProblem("#/steps", f"{sampling.sampler} takes at least {fewest} steps")
    if sampling.steps > most:
        yield FieldProblem(
            "#/steps",
            f"{sampling.sampler} on the {sampling.schedule} schedule takes at most {most} steps "
            f"with {spec.id}",
        )


def _check_guidance(sampling: Sampling, body: JobCreate, spec: ModelSpec) -> Iterator[FieldProblem]:
    if spec.guidance is GuidanceForm.CLASSIFIER_FREE:
        return
    if spec.guidance is GuidanceForm.NONE and sampling.guidance > 1:
        yield FieldProblem("#/guidance", f"{spec.id} was distilled to need none; 1 means none")
    if sampling.guidance_rescale > 0:
        yield FieldProblem(
            "#/guidance_rescale",
            f"{spec.id} predicts once for each step, and nothing is there to rescale by; 0 works",
        )
    if body.negative_prompt:
        yield FieldProblem(
            "#/negative_prompt",
            f"{spec.id} predicts once for each step, for the prompt; leave it out and say in the "
            "prompt what shall be there instead",
        )


def _check_start(
    sampling: Sampling, strength: float | None, inputs: Inputs, spec: ModelSpec
) -> Iterator[FieldProblem]:
    if inputs.init_image is not None and not spec.starts_from_pictures:
        yield FieldProblem(
            "#/init_image", f"{spec.id} starts from noise alone; leave init_image and mask out"
        )
        return
    if inputs.init_image is None:
        if inputs.mask is not None:
            yield FieldProblem("#/mask", "a mask says what of an init_image changes; send one too")
        if strength is not None:
            yield FieldProblem("#/strength", "only a job with an init_image has a strength")
    elif strength is not None:
        if int(sampling.steps * strength) == 0:
            least = math.ceil(1000 / sampling.steps) / 1000
            yield FieldProblem(
                "#/strength",
                f"leaves none of {sampling.steps} steps; {least:g} is enough, or more steps",
            )
        elif refusal := find_start_refusal(sampling.sampler, sampling.steps, strength):
            yield FieldProblem(
                f"#/{refusal.field}", f"{refusal.reason}; {refusal.instead} can, or a strength of 1"
            )


def _check_not_before(body: JobCreate, now: datetime) -> Iterator[FieldProblem]:
    if body.not_before is not None and body.not_before - now > MAX_AHEAD:
        yield FieldProblem("#/not_before", f"at most {MAX_AHEAD.days} days ahead")
