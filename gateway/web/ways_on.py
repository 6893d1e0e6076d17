"""Why a study has no draft, in words, and what can be done about it.

Knows a sentence of each kind for every reason code. Does not know studies, nor who may do what: the page asks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gateway.web.languages import english
from record.states import ReasonCode


@dataclass(frozen=True, slots=True)
class WayOn:
    """Why the machine wrote nothing, and the way on for the patient's study; English, for the template to translate."""

    why: str
    how: str


_BY_HAND = english("Read the images here and report the study by hand.")
_AGAIN = english("Report the study by hand, or have an operator read it again; the server's log tells more.")

WAYS: Mapping[str, WayOn] = {
    ReasonCode.NO_IMAGES: WayOn(
        english("The study holds no images, only other objects such as reports or presentation states."),
        english("If images are missing, have them sent: the study opens again by itself when they arrive."),
    ),
    ReasonCode.FETCHED_AS_PRIOR: WayOn(
        english("These images were only fetched as an earlier study, for comparison."),
        english("If the study is to be read, an operator can have it read, or you report it by hand."),
    ),
    ReasonCode.NO_PROTOCOL: WayOn(
        english("No reading protocol is made for this kind of study: its modality, body part or age is not covered."),
        _BY_HAND,
    ),
    ReasonCode.NO_USABLE_FRAMES: WayOn(
        english("None of the images is of a kind that the model reads (localizers, screenshots, derived images)."),
        _BY_HAND,
    ),
    ReasonCode.UNDECODABLE: WayOn(
        english("The images could not be decoded: they are damaged, or compressed in a way that is not supported."),
        english("Have them sent again, uncompressed if possible; until then read them where they were made."),
    ),
    ReasonCode.BLANK_PICTURE: WayOn(
        english("A picture shows nothing, or nearly nothing, after rendering."),
        english("Look at the images here with another window, and report the study by hand."),
    ),
    ReasonCode.CHECKS_FAILED: WayOn(
        english("The model's text did not pass the checks of the protocol, so it is not shown."),
        _BY_HAND,
    ),
    ReasonCode.UNSUPPORTED: WayOn(
        english(
            "The model is not competent for this kind of study, or the images are of a kind that is not supported."
        ),
        _BY_HAND,
    ),
    ReasonCode.ENGINE_REJECTED: WayOn(english("The model's engine refused the question."), _AGAIN),
    ReasonCode.UNUSABLE_FINDINGS: WayOn(english("The model's answer could not be used as findings."), _AGAIN),
    ReasonCode.TIMED_OUT: WayOn(english("The model took too long, several times."), _AGAIN),
    ReasonCode.ERROR: WayOn(english("The reading failed by a fault on our side."), _AGAIN),
    ReasonCode.LEASE_LOST: WayOn(english("The program that was reading the study stopped, several times."), _AGAIN),
    ReasonCode.NOT_FOUND: WayOn(english("Something that the reading needs is gone, such as a stored image."), _AGAIN),
    ReasonCode.NOT_PERMITTED: WayOn(english("The reading was not permitted to use something it needs."), _AGAIN),
}


def way_on(reason_code: str | None) -> WayOn | None:
    """The way on for a reason; None where none is known."""
    return WAYS.get(reason_code or "")
