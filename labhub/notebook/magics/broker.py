"""``%hub_broker``, ``%hub_connect`` and ``%hub_doctor``."""

from __future__ import annotations

import time

from IPython.core.magic import line_magic, magics_class
from IPython.core.magic_arguments import argument, magic_arguments, parse_argstring

from labhub.hub import Hub
from labhub.notebook.display import BrokerStatus, Findings
from labhub.notebook.magics.common import SessionMagics, broker_name, checked_action, one_line_errors, uninterrupted
from labhub.runtime import ConnectionFile, path_of

ACTIONS = ("start", "stop", "status", "restart")


@magics_class
class BrokerMagics(SessionMagics):
    """The magics about brokers; each is a parse, one call and a display."""

    @magic_arguments()
    @argument("action", nargs="?", default="status", metavar="|".join(ACTIONS), help="what to do; status unless given")
    @broker_name()
    @argument("--endpoint", metavar="E", help="where to listen, as tcp://127.0.0.1:5570; port 0 is any")
    @argument("--here", action="store_true", help="run it inside this kernel: it ends with the kernel or %%unload_ext")
    @line_magic
    @one_line_errors
    @uninterrupted
    def hub_broker(self, line: str) -> BrokerStatus:
        """Start, stop, restart or show the broker of this machine.

        It is a process of its own and outlives the kernel, unless it is started with --here. Starting it twice is
        harmless. Stopping it stops no data: channels go on, and are registered again with the next broker.

        Examples
        --------
        ``%hub_broker start``, or ``%hub_broker restart --endpoint tcp://127.0.0.1:5571``
        """
        options = parse_argstring(self.hub_broker, line)
        name, where = options.name, (options.name, options.endpoint, options.here)
        match checked_action("hub_broker", options.action, ACTIONS):
            case "start":
                return self._status(self.session.start_broker(*where))
            case "restart":
                return self._status(self.session.restart_broker(*where))
            case "stop":
                return BrokerStatus.stopped(self.session.stop_broker(name).name)
            case _:
                return self._status(self.session.running(name))

    @magic_arguments()
    @argument("name", nargs="?", default="default", help="name of the broker")
    @argument("--start", action="store_true", help="start it if it does not run")
    @argument("--endpoint", metavar="E", help="where a broker on another machine listens, as tcp://10.0.0.5:5570")
    @argument("--public-key", metavar="K", help="its public key, in quotes; this user's own must be enrolled there")
    @line_magic
    @one_line_errors
    def hub_connect(self, line: str) -> Hub:
        """Connect to a broker, and call the hub ``hub``, unless that name is taken by something else.

        Examples
        --------
        ``%hub_connect --start``, or ``lab = %hub_connect beamline``; a broker on another machine with
        ``%hub_connect beamline --endpoint tcp://10.0.0.5:5570 --public-key 'KEY'``
        """
        options = parse_argstring(self.hub_connect, line)
        # IPython leaves the quotes in; no key has one.
        key = options.public_key and options.public_key.strip("'\"")
        hub = self.session.hub(options.name, options.start, options.endpoint, key)
        assert self.shell is not None  # a magic runs in a shell
        taken = self.shell.user_ns.get("hub")
        if taken is None or isinstance(taken, Hub):
            self.shell.user_ns["hub"] = hub
        else:
            print(f"the name hub is taken by a {type(taken).__name__}; assign the result: h = %hub_connect")  # noqa: T201
        return hub

    @magic_arguments()
    @line_magic
    @one_line_errors
    def hub_doctor(self, line: str) -> Findings:
        """Look for what is wrong: directories, limits, keys, brokers and segments. Nothing is changed.

        Examples
        --------
        ``%hub_doctor``
        """
        from labhub.doctor import examine

        parse_argstring(self.hub_doctor, line)
        return Findings(examine())

    def _status(self, found: ConnectionFile) -> BrokerStatus:
        names = tuple(channel.name for channel in self.session.hub(found.name).channels())
        # Not since the start of its process, which may be a kernel.
        uptime = max(0.0, time.time() - path_of(found.name).stat().st_mtime)
        return BrokerStatus(found.name, True, found.endpoint, found.public_key, uptime, names)
