"""What only the engine that runs a model itself can promise, and how it fails."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Iterator
from concurrent.futures import CancelledError
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from record.errors import EngineRejected, EngineUnavailable
from worker.engines import Choice, Message, Parameters, Picture, Prompt, open_engine
from worker.engines.local import selftest
from worker.engines.local.choices import question
from worker.engines.local.engine import LocalEngine
from worker.engines.local.generation import run
from worker.engines.local.loading import Loaded, load
from worker.engines.ticket import Ticket
from worker.phantom import MODEL_DIR
from worker.phantom.anatomy import ZONES, Level, Phantom, Side, Zone, report
from worker.phantom.exam import asked, seen

WAIT_S = 60.0
DRAWN = Parameters(temperature=1.0, repetition_penalty=1.2, seed=11)


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    torch.set_num_threads(1)
    return load(str(MODEL_DIR), name="phantom")


@pytest.fixture
def spoilt(loaded: Loaded) -> Loaded:
    """A copy whose model a test may break."""
    return replace(loaded, model=copy.deepcopy(loaded.model))


@pytest.fixture
def engine(spoilt: Loaded) -> Iterator[LocalEngine]:
    engine = LocalEngine(spoilt, slots=8)
    yield engine
    engine.close()


def prompts(count: int = 5) -> list[Prompt]:
    """Prompts of unequal length and number of pictures."""
    chests = [Phantom(ZONES[number % 5], enlarged=bool(number % 2), seed=number) for number in range(count)]
    views = [[seen(chest, view=view) for view in range(1 + number % 3)] for number, chest in enumerate(chests)]
    return [
        Prompt((Message("user", "Describe the findings. " * (1 + number % 2), tuple(pictures)),))
        for number, pictures in enumerate(views)
    ]


def together(loaded: Loaded, asked: list[Prompt]) -> list[Any]:
    tickets = [Ticket(prompt) for prompt in asked]
    run(loaded, tickets)
    return [ticket.result(0) for ticket in tickets]


@pytest.mark.parametrize("parameters", [Parameters(), DRAWN, Parameters(repetition_penalty=1.3)])
def test_a_batch_gives_the_tokens_that_each_prompt_gets_alone(loaded: Loaded, parameters: Parameters) -> None:
    several = [replace(prompt, parameters=parameters) for prompt in prompts()]
    batched = together(loaded, several)
    alone = [together(loaded, [prompt])[0] for prompt in several]
    assert [c.token_ids for c in batched] == [c.token_ids for c in alone]
    for one, other in zip(batched, alone, strict=True):
        np.testing.assert_allclose(one.token_logprobs, other.token_logprobs, atol=1e-3)
    assert [c.batch_position for c in batched] == list(range(5))


def test_greedy_and_drawn_answers_of_any_length_share_a_batch(loaded: Loaded) -> None:
    prompt = prompts(1)[0]
    mixed = [Parameters(), DRAWN, Parameters(max_new_tokens=3)]
    batched = together(loaded, [replace(prompt, parameters=parameters) for parameters in mixed])
    alone = [together(loaded, [replace(prompt, parameters=parameters)])[0] for parameters in mixed]
    assert [c.token_ids for c in batched] == [c.token_ids for c in alone]
    assert batched[2].finish == "length"


def test_samples_are_drawn_with_the_seeds_that_follow(loaded: Loaded) -> None:
    hot = Parameters(temperature=3.0, seed=5, max_new_tokens=8)
    prompt = replace(prompts(1)[0], parameters=hot, samples=3)
    first = together(loaded, [prompt])[0]
    drawn = [first, *first.alternatives]
    singles = [together(loaded, [replace(prompt, samples=1, parameters=replace(hot, seed=5 + n))])[0] for n in range(3)]
    assert [c.token_ids for c in drawn] == [c.token_ids for c in singles]
    assert len({c.token_ids for c in drawn}) == 3
    assert [c.parameters["seed"] for c in drawn] == [5, 6, 7]


def test_the_probabilities_kept_are_the_models_own(loaded: Loaded) -> None:
    prompt = prompts(1)[0]
    completion = together(loaded, [prompt])[0]
    processor = loaded.family.processor
    inputs = processor(text=[completion.rendered_prompt], images=[p.pixels for p in prompt.pictures],
                       return_tensors="pt", input_data_format="channels_last")  # fmt: skip
    whole = torch.cat([inputs["input_ids"], torch.tensor([completion.token_ids])], dim=1)
    with torch.no_grad():
        logits = loaded.model(input_ids=whole, pixel_values=inputs["pixel_values"]).logits[0]
    steps = torch.log_softmax(logits, -1)[inputs["input_ids"].shape[1] - 1 : -1]
    expected = steps[torch.arange(len(completion.token_ids)), list(completion.token_ids)]
    np.testing.assert_allclose(completion.token_logprobs, expected.numpy(), atol=1e-3)


def test_the_repetition_penalty_does_not_count_the_prompt(loaded: Loaded) -> None:
    # The first token of the answer stands in the question too; a penalty that counted it would forbid it.
    prompt = Prompt((Message("user", "Describe the findings. Findings: Impression:", prompts(1)[0].pictures),))
    plain, punished = (
        together(loaded, [replace(prompt, parameters=Parameters(repetition_penalty=penalty, max_new_tokens=1))])[0]
        for penalty in (1.0, 1e6)
    )
    assert plain.token_ids == punished.token_ids
    assert plain.token_ids[0] in loaded.family.processor.tokenizer(plain.rendered_prompt).input_ids


def test_equal_pictures_go_through_the_tower_once(spoilt: Loaded) -> None:
    rows: list[int] = []
    tower = spoilt.model.model.vision_tower

    def note(_: Any, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        rows.append(len(given[0] if given else named["pixel_values"]))

    tower.register_forward_pre_hook(note, with_kwargs=True)
    one, other = prompts(2)
    together(spoilt, [one, one, other, replace(one, samples=4)])
    assert rows == [3]


def test_the_prompt_is_the_one_the_models_were_trained_on(loaded: Loaded) -> None:
    one, other = (seen(Phantom(None, enlarged=False, seed=seed)) for seed in (1, 2))
    messages = (
        Message("system", "Be brief."),
        Message("user", "What is this?", (one, other)),
        Message("assistant", "A chest."),
        Message("user", "Is it normal?"),
    )
    rendered = together(loaded, [Prompt(messages)])[0].rendered_prompt
    assert rendered == (
        "<|user|>\n<image>\n<image>\nBe brief.\nWhat is this?\n<|assistant|>\nA chest. \n"
        "<|user|>\nIs it normal?\n<|assistant|>\n"
    )


def steps_of(loaded: Loaded) -> list[int]:
    """Count the model's forward passes."""
    seen_rows: list[int] = []
    loaded.model.register_forward_hook(lambda *_: seen_rows.append(1))
    return seen_rows


def test_cancelling_stops_between_two_tokens(spoilt: Loaded) -> None:
    steps = steps_of(spoilt)
    ticket = Ticket(prompts(1)[0])
    ticket.tell = lambda _: ticket.cancel()  # type: ignore[method-assign]
    run(spoilt, [ticket])
    assert len(steps) == 1
    with pytest.raises(CancelledError):
        ticket.result(0)


def test_a_deadline_stops_between_two_tokens_and_spares_the_mates(spoilt: Loaded) -> None:
    late, mate = (Ticket(prompt) for prompt in prompts(2))
    late.tell = lambda _: setattr(late, "deadline", 0.0)  # type: ignore[method-assign]
    steps = steps_of(spoilt)
    run(spoilt, [late, mate])
    with pytest.raises(TimeoutError):
        late.result(0)
    assert len(mate.result(0).token_ids) == len(steps) > 5


def test_a_question_past_its_deadline_never_reaches_the_model(engine: LocalEngine) -> None:
    steps = steps_of(engine._loaded)
    going = engine.submit(replace(prompts(1)[0], deadline_s=0.0))
    with pytest.raises(TimeoutError):
        going.result(WAIT_S)
    engine.close()
    assert not steps


def test_who_asks_to_be_alone_shares_no_batch(engine: LocalEngine) -> None:
    prompt = prompts(1)[0]
    going = [engine.submit(replace(prompt, alone=number == 2)) for number in range(6)]
    sizes = [one.result(WAIT_S).batch_size for one in going]
    assert sizes[2] == 1
    assert max(sizes) > 1


def test_waiting_prompts_are_answered_together_up_to_the_slots(engine: LocalEngine) -> None:
    going = [engine.submit(prompts(1)[0]) for _ in range(20)]
    sizes = [one.result(WAIT_S).batch_size for one in going]
    assert max(sizes) == 8


def test_a_batch_too_large_for_the_device_is_halved(engine: LocalEngine, spoilt: Loaded) -> None:
    generate, sizes = spoilt.model.generate, []

    def small(**inputs: Any) -> Any:
        sizes.append(len(inputs["input_ids"]))
        if sizes[-1] > 2:
            raise torch.OutOfMemoryError("too much")
        return generate(**inputs)

    spoilt.model.generate = small
    going = [engine.submit(prompt) for prompt in prompts(8)]
    assert all(one.result(WAIT_S).batch_size <= 2 for one in going)
    assert max(sizes) > 2


def test_a_prompt_too_large_even_alone_is_rejected(engine: LocalEngine, spoilt: Loaded) -> None:
    def never(**_: Any) -> None:
        raise torch.OutOfMemoryError("too much")

    spoilt.model.generate = never
    with pytest.raises(EngineRejected) as rejection:
        engine.submit(prompts(1)[0]).result(WAIT_S)
    assert rejection.value.facts["reason"] == "out_of_memory"


def test_a_poisonous_prompt_is_found_and_its_mates_are_answered(engine: LocalEngine) -> None:
    poison = Prompt((Message("user", "?", (Picture("f" * 64, np.zeros((9, 9), np.uint8)),)),))
    going = [engine.submit(prompt) for prompt in [*prompts(3), poison, *prompts(2)]]
    for number, one in enumerate(going):
        if number == 3:
            with pytest.raises(EngineRejected):
                one.result(WAIT_S)
        else:
            assert one.result(WAIT_S).text.startswith("Findings:")


def test_an_error_of_the_model_rejects_the_prompt_and_the_engine_goes_on(engine: LocalEngine, spoilt: Loaded) -> None:
    generate = spoilt.model.generate

    def once(**_: Any) -> None:
        spoilt.model.generate = generate
        raise RuntimeError("shape mismatch")

    spoilt.model.generate = once
    with pytest.raises(EngineRejected) as rejection:
        engine.submit(prompts(1)[0]).result(WAIT_S)
    assert rejection.value.facts == {"reason": "model_error", "error_type": "RuntimeError"}
    assert engine.submit(prompts(1)[0]).result(WAIT_S).text


def test_a_device_that_is_gone_makes_the_engine_unavailable(engine: LocalEngine, spoilt: Loaded) -> None:
    def gone(**_: Any) -> None:
        raise torch.AcceleratorError("device-side assert")

    spoilt.model.generate = gone
    with pytest.raises(EngineUnavailable):
        engine.submit(prompts(1)[0]).result(WAIT_S)
    engine._thread.join(WAIT_S)
    with pytest.raises(EngineUnavailable) as away:
        engine.submit(prompts(1)[0])
    assert away.value.facts["reason"] == "broken"


def test_logits_that_are_not_finite_are_never_turned_into_words(spoilt: Loaded) -> None:
    with torch.no_grad():
        spoilt.model.lm_head.weight[7] = float("nan")
    ticket = Ticket(prompts(1)[0])
    run(spoilt, [ticket])
    with pytest.raises(EngineRejected) as rejection:
        ticket.result(0)
    assert rejection.value.facts["reason"] == "logits_not_finite"


def test_a_prompt_whose_pixels_got_lost_is_refused(loaded: Loaded) -> None:
    class Losing:
        def __init__(self, processor: Any) -> None:
            self._processor = processor

        def __getattr__(self, name: str) -> Any:
            return getattr(self._processor, name)

        def __call__(self, **given: Any) -> Any:
            return {k: v for k, v in self._processor(**given).items() if k != "pixel_values"}

    family = replace(loaded.family, processor=Losing(loaded.family.processor))
    with pytest.raises(EngineRejected) as rejection:
        run(replace(loaded, family=family), [Ticket(prompts(1)[0])])
    assert rejection.value.facts["reason"] == "pixels_missing"


def test_a_prompt_that_leaves_no_room_is_refused_and_a_tight_one_is_cut(loaded: Loaded) -> None:
    picture = seen(Phantom(None, enlarged=False, seed=1))
    with pytest.raises(EngineRejected):
        run(loaded, [Ticket(asked(*[picture] * 40))])
    completion, mate = together(loaded, [asked(*[picture] * 26), asked(picture)])
    assert mate.parameters["max_new_tokens"] == 512
    assert completion.prompt_tokens + completion.parameters["max_new_tokens"] == loaded.positions


def test_the_librarys_continuous_batching_is_forbidden(loaded: Loaded) -> None:
    with pytest.raises(NotImplementedError):
        loaded.model.generate_batch([[1, 2, 3]])


def test_the_identity_names_every_file_and_one_digest(loaded: Loaded) -> None:
    identity = loaded.identity
    assert {"model.safetensors", "config.json", "tokenizer.json", "processor_config.json", "chat_template.jinja",
            "generation_config.json"} <= set(identity.files)  # fmt: skip
    assert len(identity.weights_digest) == 64
    assert (identity.model, identity.where, identity.dtype) == ("phantom", "cpu", "float32")
    assert identity.architecture == "LlavaForConditionalGeneration"
    assert identity.software["adjusted"] == ""


def test_the_self_test_passes_the_phantom_and_stops_a_model_that_does_not_see(spoilt: Loaded) -> None:
    selftest.check(spoilt)
    with torch.no_grad():
        spoilt.model.model.multi_modal_projector.linear_2.weight.zero_()
    with pytest.raises(EngineRejected) as rejection:
        selftest.check(spoilt)
    assert rejection.value.facts["check"] == "pixels_reach_the_words"


def test_the_self_test_stops_a_processor_that_crops(loaded: Loaded) -> None:
    processor = copy.deepcopy(loaded.family.processor)
    processor.image_processor.do_pad = False
    with pytest.raises(EngineRejected) as rejection:
        selftest.check(replace(loaded, family=replace(loaded.family, processor=processor)))
    assert rejection.value.facts["check"] == "edges_kept"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(MODEL_DIR, tmp_path / "model"))


def test_a_checkpoint_as_old_as_the_published_ones_is_completed(folder: Path, loaded: Loaded) -> None:
    processor = json.loads((folder / "processor_config.json").read_text())
    pictures = processor["image_processor"]
    for name in ("do_pad", "image_processor_type"):
        pictures.pop(name)
    old = pictures | {"image_processor_type": "CLIPImageProcessor", "processor_class": "LlavaProcessor"}
    (folder / "preprocessor_config.json").write_text(json.dumps(old))
    (folder / "processor_config.json").write_text(json.dumps({"processor_class": "LlavaProcessor"}))
    (folder / "chat_template.jinja").unlink()
    complete = load(str(folder), name="old")
    assert {"patch_size", "do_pad", "chat_template"} <= set(complete.family.adjusted)
    several = prompts(3)
    assert [c.token_ids for c in together(complete, several)] == [c.token_ids for c in together(loaded, several)]


def test_a_checkpoint_with_a_weight_missing_is_refused(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights.pop("multi_modal_projector.linear_1.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(EngineRejected) as rejection:
        load(str(folder), name="torn")
    assert rejection.value.facts["reason"] == "missing_keys"


def test_pickled_weights_are_refused(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(EngineRejected):
        load(str(folder), name="pickled")


def test_the_original_layout_is_refused_with_what_to_do(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "llava_qwen2"}))
    with pytest.raises(EngineRejected, match="-hf checkpoint"):
        load(str(folder), name="original")


def test_a_folder_opens_by_its_path(folder: Path) -> None:
    engine = open_engine(str(folder), slots=2, threads=1)
    try:
        assert engine.submit(prompts(1)[0]).result(WAIT_S).text
        assert engine.identity.weights_digest == load(str(MODEL_DIR), name="phantom").identity.weights_digest
    finally:
        engine.close()


# ---- closed questions

LUNGS = {zone: report(Phantom(zone, enlarged=False, seed=0)).partition(" The heart")[0] for zone in ZONES}
"""What the model has learnt to begin with, by zone; the options share their first tokens."""


def closed(prompt: Prompt, *options: str) -> Prompt:
    return replace(prompt, constraint=Choice(options))


def chest(zone: Zone | None, seed: int = 7) -> Phantom:
    return Phantom(zone, enlarged=False, seed=seed)


@pytest.mark.parametrize("zone", ZONES, ids=str)
def test_what_the_model_has_learnt_is_sure_and_follows_the_picture(loaded: Loaded, zone: Zone | None) -> None:
    completion = together(loaded, [closed(asked(seen(chest(zone))), *LUNGS.values())])[0]
    assert completion.text == LUNGS[zone]
    assert completion.choices[LUNGS[zone]] > 0.9
    assert completion.choice_mass > 0.9


def test_mirroring_the_picture_turns_the_probabilities(loaded: Loaded) -> None:
    left, right = (LUNGS[Zone(side, Level.UPPER)] for side in (Side.LEFT, Side.RIGHT))
    plain, mirrored = together(
        loaded,
        [
            closed(asked(seen(chest(Zone(Side.LEFT, Level.UPPER)), mirrored=mirrored)), left, right)
            for mirrored in (False, True)
        ],
    )
    assert plain.choices[left] > 0.9
    assert mirrored.choices[left] < 0.1


def test_the_answer_that_would_be_written_anyhow_has_its_own_tokens_and_probability(loaded: Loaded) -> None:
    prompt = asked(seen(chest(None)))
    free, choice = together(loaded, [prompt, closed(prompt, *LUNGS.values())])
    length = len(choice.token_ids)
    assert choice.token_ids == free.token_ids[:length]
    np.testing.assert_allclose(choice.token_logprobs, free.token_logprobs[:length], atol=1e-3)


@pytest.mark.parametrize("options", [("yes", "no"), ("是", "否"), ("sí", "no")])
def test_an_options_probability_is_the_sum_over_all_its_spellings(loaded: Loaded, options: tuple[str, ...]) -> None:
    prompt = closed(prompts(1)[0], *options)
    completion = together(loaded, [prompt])[0]
    processor = loaded.family.processor
    inputs = processor(text=[completion.rendered_prompt], images=[p.pixels for p in prompt.pictures],
                       return_tensors="pt", input_data_format="channels_last")  # fmt: skip
    expected = dict.fromkeys(options, 0.0)
    for sequence, option in question(processor.tokenizer, Choice(options))._sequences.items():
        whole = torch.cat([inputs["input_ids"], torch.tensor([sequence])], dim=1)
        with torch.no_grad():
            logits = loaded.model(input_ids=whole, pixel_values=inputs["pixel_values"]).logits[0]
        steps = torch.log_softmax(logits, -1)[inputs["input_ids"].shape[1] - 1 : -1]
        expected[option] += float(steps[torch.arange(len(sequence)), list(sequence)].sum().exp())
    mass = sum(expected.values())
    assert completion.choice_mass == pytest.approx(mass, rel=1e-2)
    assert completion.choices == pytest.approx({option: p / mass for option, p in expected.items()}, abs=1e-3)


def test_closed_questions_and_their_mates_are_answered_in_a_batch_as_alone(loaded: Loaded) -> None:
    options = [("yes", "no"), tuple(LUNGS.values()), ("是", "否")]
    several = [p if n % 2 else closed(p, *options[n // 2]) for n, p in enumerate(prompts())]
    several[1] = replace(several[1], parameters=DRAWN)
    batched = together(loaded, several)
    alone = [together(loaded, [prompt])[0] for prompt in several]
    mates = together(loaded, [prompt for prompt in several if prompt.constraint is None])
    assert [c.token_ids for c in batched] == [c.token_ids for c in alone]
    assert [c.text for c in batched] == [c.text for c in alone]
    assert [c.token_ids for c in mates] == [c.token_ids for c in batched if not c.choices]
    for one, other in zip(batched, alone, strict=True):
        assert one.choices == pytest.approx(other.choices, abs=1e-3)
        assert one.choice_mass == pytest.approx(other.choice_mass, rel=1e-2)
        np.testing.assert_allclose(one.token_logprobs, other.token_logprobs, atol=1e-3)
    assert [c.batch_position for c in batched] == list(range(5))


def test_one_step_answers_where_every_option_is_one_token(spoilt: Loaded) -> None:
    processor = copy.deepcopy(spoilt.family.processor)
    processor.tokenizer.add_tokens([space + word for word in ("yes", "Yes", "YES", "no", "No", "NO")
                                    for space in ("", " ")])  # fmt: skip
    spoilt.model.resize_token_embeddings(len(processor.tokenizer))
    steps = steps_of(spoilt)
    worded = replace(spoilt, family=replace(spoilt.family, processor=processor))
    completion = together(worded, [closed(prompts(1)[0], "yes", "no")])[0]
    assert len(steps) == len(completion.token_ids) == 1


def test_spellings_that_cannot_matter_cost_no_step(spoilt: Loaded) -> None:
    asks = question(spoilt.family.processor.tokenizer, Choice(tuple(LUNGS.values())))
    steps = steps_of(spoilt)
    together(spoilt, [closed(asked(seen(chest(None))), *LUNGS.values())])
    assert len(asks._sequences) == 30
    assert len(steps) < 8 * asks.longest


def test_a_closed_question_that_is_cancelled_on_the_way_spares_the_rest(spoilt: Loaded) -> None:
    given_up, mate = Ticket(closed(prompts(1)[0], "yes", "no")), Ticket(closed(prompts(1)[0], "是", "否"))
    spoilt.model.register_forward_hook(lambda *_: given_up.cancel())
    run(spoilt, [given_up, mate])
    with pytest.raises(CancelledError):
        given_up.result(0)
    assert mate.result(0).text in {"是", "否"}


def test_closing_on_the_way_leaves_a_closed_question_open(loaded: Loaded) -> None:
    ticket, calls = Ticket(closed(prompts(1)[0], "是", "否")), iter([False] * 3)
    run(loaded, [ticket], lambda: next(calls, True))
    assert not ticket.over


def test_a_closed_question_meets_logits_that_are_not_finite(spoilt: Loaded) -> None:
    with torch.no_grad():
        spoilt.model.lm_head.weight[7] = float("nan")
    ticket = Ticket(closed(prompts(1)[0], "yes", "no"))
    run(spoilt, [ticket])
    with pytest.raises(EngineRejected) as rejection:
        ticket.result(0)
    assert rejection.value.facts["reason"] == "logits_not_finite"


def test_options_that_cannot_be_written_or_find_no_room_reject_their_prompt_alone(engine: LocalEngine) -> None:
    picture = seen(chest(None))
    impossible = [closed(asked(picture), "<image>", "no"), closed(asked(*[picture] * 26), "yes " * 99 + "yes", "no")]
    mates = [closed(asked(picture), "yes", "no"), asked(picture)]
    going = [engine.submit(prompt) for prompt in [*impossible, *mates]]
    reasons = []
    for one in going[:2]:
        with pytest.raises(EngineRejected) as rejection:
            one.result(WAIT_S)
        reasons.append(rejection.value.facts["reason"])
    assert reasons == ["constraint", "prompt_too_long"]
    assert going[2].result(WAIT_S).text in {"yes", "no"}
    assert going[3].result(WAIT_S).text.startswith("Findings:")
