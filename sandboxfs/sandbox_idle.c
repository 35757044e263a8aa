/*
 * Letting go of a sandbox that nobody uses: where sandboxes sleep and are paid for while they do not, a mount's link to one keeps it
 * awake. So it is stopped (its driver lets go of it, the server puts it to sleep in its own time) after sleep-after without a use here; the next
 * use starts it again, and whether it is still the same is looked at then, as after any start. See sandbox.h.
 *
 * A use is a request that is sent or answered, and what lasts: a stream (what runs is followed by one), a WebSocket, an exposed port.
 */
#include <errno.h>
#include <string.h>

#include "cleanup.h"
#include "sandbox_impl.h"

void sandbox_use(struct sandbox *sb, int more)
{
	atomic_fetch_add(&sb->uses, more);
	if (more > 0)
		return;
	AUTO_UNLOCK(&sb->lock);
	sb->used_ms = call_now_ms();
}

/* Lock held. When it is let go of; <0: never, as things are. */
static int64_t rests_at(struct sandbox *sb)
{
	if (!sb->server->driver->sleeps || !sb->started || sb->died || sb->starting || sb->gone ||
		sb->closed || sb->keepalive || sb->state != SANDBOX_RUNNING || atomic_load(&sb->uses) > 0)
		return -1;
	return sb->used_ms + sb->sleep_after_ms;
}

static void let_go(struct sandbox *sb)
{
	const struct server *s = sb->server;
	s->driver->stop(s->driver_state, sandbox_stop_by(sb), sb->name, &sb->instance);
	AUTO_UNLOCK(&sb->lock);
	sb->starting = sb->started = false;
	sandbox_set_state(sb, SANDBOX_UNKNOWN,
		"let go of since nobody used it here (sleep-after); the next use goes to it again");
}

void sandbox_rest(struct sandbox *sb)
{
	pthread_mutex_lock(&sb->lock);
	int64_t at = rests_at(sb);
	if (at < 0 || call_now_ms() < at) {
		pthread_mutex_unlock(&sb->lock);
		return;
	}
	/* Who comes now waits as for a start, and then starts it. */
	sb->starting = true;
	pthread_mutex_unlock(&sb->lock);
	if (server_in_background(sb, let_go))
		let_go(sb);
}

bool sandbox_sleeps(const struct sandbox *sb)
{
	return sb->server->driver->sleeps;
}

void sandbox_sleep_get(struct sandbox *sb, struct sandbox_sleep *out)
{
	AUTO_UNLOCK(&sb->lock);
	int64_t at = rests_at(sb);
	*out = (struct sandbox_sleep){.keepalive = sb->keepalive,
		.after_ms = sb->sleep_after_ms,
		.in_ms = at < 0 ? -1 : at - call_now_ms()};
}

void sandbox_sleep_set(struct sandbox *sb, const bool *keepalive, int64_t after_ms)
{
	AUTO_UNLOCK(&sb->lock);
	if (keepalive)
		sb->keepalive = *keepalive;
	if (after_ms > 0)
		sb->sleep_after_ms = after_ms;
}
