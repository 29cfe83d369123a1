"""A process' session as a pure state machine: `step(state, event, now) -> (state, commands)`.

All rules of the conversation with a coordinator are here: joining, rounds, reconnecting, and when to give up. No
socket, file, thread or clock is; those are in `cospan.client.session.driver`. Begin with `state`, then `dispatch`.
"""

from cospan.client.session.machine.dispatch import initial_state as initial_state
from cospan.client.session.machine.dispatch import step as step
from cospan.client.session.machine.events import Agree as Agree
from cospan.client.session.machine.events import Agreed as Agreed
from cospan.client.session.machine.events import Answered as Answered
from cospan.client.session.machine.events import Ask as Ask
from cospan.client.session.machine.events import Begin as Begin
from cospan.client.session.machine.events import Command as Command
from cospan.client.session.machine.events import Conclude as Conclude
from cospan.client.session.machine.events import Connect as Connect
from cospan.client.session.machine.events import Connected as Connected
from cospan.client.session.machine.events import Count as Count
from cospan.client.session.machine.events import Counted as Counted
from cospan.client.session.machine.events import Described as Described
from cospan.client.session.machine.events import Event as Event
from cospan.client.session.machine.events import Fail as Fail
from cospan.client.session.machine.events import FeedSilent as FeedSilent
from cospan.client.session.machine.events import GradientReady as GradientReady
from cospan.client.session.machine.events import Inquire as Inquire
from cospan.client.session.machine.events import Learn as Learn
from cospan.client.session.machine.events import LearningFailed as LearningFailed
from cospan.client.session.machine.events import Prepare as Prepare
from cospan.client.session.machine.events import Prepared as Prepared
from cospan.client.session.machine.events import Received as Received
from cospan.client.session.machine.events import Regrouped as Regrouped
from cospan.client.session.machine.events import Saved as Saved
from cospan.client.session.machine.events import StopRequested as StopRequested
from cospan.client.session.machine.events import StreamBroke as StreamBroke
from cospan.client.session.machine.events import Tick as Tick
from cospan.client.session.machine.events import Transmit as Transmit
from cospan.client.session.machine.events import TransmitMasked as TransmitMasked
from cospan.client.session.machine.events import Unanswered as Unanswered
from cospan.client.session.machine.events import Unsummed as Unsummed
from cospan.client.session.machine.events import answer_to_ask as answer_to_ask
from cospan.client.session.machine.reconnecting import tick_seconds as tick_seconds
from cospan.client.session.machine.state import KeptGradient as KeptGradient
from cospan.client.session.machine.state import Outcome as Outcome
from cospan.client.session.machine.state import Phase as Phase
from cospan.client.session.machine.state import SessionState as SessionState
from cospan.client.session.machine.state import most_kept as most_kept
from cospan.client.session.machine.state import most_kept_rounds as most_kept_rounds
