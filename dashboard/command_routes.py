"""Commands to the run, for those who know the token."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Query
from fastapi.security import HTTPBearer

from ptychoflow.dashboard import models
from ptychoflow.dashboard.control import RequireToken
from ptychoflow.streaming.commands import (
    AnyCommand,
    CommandSender,
    FollowWeights,
    HubAway,
    Pause,
    Resume,
    RollBackWeights,
    SetRegime,
    StopRun,
    WriteCheckpoint,
)
from ptychoflow.streaming.events import Regime


class PlainCommand(StrEnum):
    """Commands that need no more than their name."""

    PAUSE = "pause"
    RESUME = "resume"
    FOLLOW_SCORES = "follow_scores"
    """Let the edge's scores decide on the regime again."""
    FOLLOW_WEIGHTS = "follow_weights"
    WRITE_CHECKPOINT = "write_checkpoint"
    STOP_RUN = "stop_run"


PLAIN: dict[PlainCommand, AnyCommand] = {
    PlainCommand.PAUSE: Pause(),
    PlainCommand.RESUME: Resume(),
    PlainCommand.FOLLOW_SCORES: SetRegime(None),
    PlainCommand.FOLLOW_WEIGHTS: FollowWeights(),
    PlainCommand.WRITE_CHECKPOINT: WriteCheckpoint(),
    PlainCommand.STOP_RUN: StopRun(),
}


def command_routes(sender: CommandSender, token: str) -> APIRouter:
    """Return the routes that pass commands on; they answer when the run has taken the command in.

    Args:
        sender: closed by its owner.
        token: what requests must carry.
    """
    # the scheme is for the description of the interface alone
    guards = [Depends(RequireToken(token)), Depends(HTTPBearer(auto_error=False))]
    refusals: dict[int | str, dict[str, Any]] = {
        401: {"model": models.Refused, "description": "The token is missing or wrong"},
        503: {"model": models.Refused, "description": "The launcher of the run has ended"},
    }
    routes = APIRouter(prefix="/api/commands", tags=["commands"], dependencies=guards, responses=refusals)

    def send(command: AnyCommand, name: str) -> models.Sent:
        try:
            sender.send(command)
        except HubAway as error:
            raise HTTPException(503, str(error)) from None
        return models.Sent(command=name)

    @routes.get("")
    def check() -> list[str]:
        """Return the names of the commands: a way to try the token."""
        return [*PLAIN, "set_regime", "roll_back_weights"]

    @routes.post("/set_regime", status_code=202)
    def set_regime(regime: Regime) -> models.Sent:
        """Keep to a regime from the next perspective on, until `follow_scores`."""
        return send(SetRegime(regime), "set_regime")

    @routes.post("/roll_back_weights", status_code=202)
    def roll_back_weights(version: Annotated[int, Query(ge=0)]) -> models.Sent:
        """Infer with an earlier version until `follow_weights`."""
        return send(RollBackWeights(version), "roll_back_weights")

    @routes.post("/{name}", status_code=202)
    def send_plain(name: PlainCommand) -> models.Sent:
        """Pause or resume the acquisition, follow the newest weights again, write a checkpoint, or stop the run."""
        return send(PLAIN[name], name)

    return routes
