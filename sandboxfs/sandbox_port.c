/*
 * URLs of a sandbox's ports that others can open: finds the driver that makes them (sandbox.h). No state of its own.
 */
#include <errno.h>

#include "sandbox_impl.h"

int sandbox_expose(struct sandbox *sb, struct call *c, uint16_t port, const char *title,
	const char *token, char **url)
{
	const struct server *s = sb->server;
	if (!s->driver->expose)
		return -ENOTSUP;
	int err = sandbox_ready(sb, c);
	return err ? err : s->driver->expose(s->driver_state, c, sb->name, port, title, token, url);
}

int sandbox_unexpose(struct sandbox *sb, struct call *c, uint16_t port)
{
	const struct server *s = sb->server;
	return s->driver->unexpose ? s->driver->unexpose(s->driver_state, c, sb->name, port) : -ENOTSUP;
}
