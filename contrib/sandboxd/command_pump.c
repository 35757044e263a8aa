/*
 * The thread of a command: reads its pipes, keeps its time-out, ends it; see command.h. Owns the pipes.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cleanup.h"
#include "command_pump.h"
#include "commands.h"
#include "script.h"
#include "session.h"
#include "session_shell.h"
#include "text.h"

enum {
	QUIET_MS = 200, /* after the leader's end, for children that print on */
	TIMEOUT_GRACE_MS = 5000,
	KILL_ROUND_MS = 50,     /* between looks at what is being killed */
	KILL_GIVE_UP_MS = 5000, /* after SIGKILL: what still lives cannot be killed */
	LAST_DRAIN = 1 << 20,   /* more than a pipe holds unless it was enlarged to its limit */
	THREAD_STACK = 256 << 10,
	/* In the shell of a session: */
	INTERRUPT_MS = 100, /* for SIGINT alone, before TERM and KILL */
	TELL_MS = 1000,     /* for the shell to come to a moment when it can be interrupted */
	INTERRUPT_ROUND_MS = 250,
	SHELL_SPARE_MS = 1000, /* after SIGKILL to what the shell runs: then it goes itself */
	NUDGE_MS = 1000
};

/* With c->lock held. */
static void tell_all(struct command *c)
{
	uint64_t one = 1;
	for (size_t i = 0; i < c->watcher_count; i++)
		(void)!write(c->watchers[i], &one, sizeof one); /* as with wake */
	pthread_cond_broadcast(&c->changed);
}

static void tell(struct command *c)
{
	AUTO_UNLOCK(&c->lock);
	tell_all(c);
}

/* Reads once from a pipe. False: nothing was there. */
static bool pump_read(struct pump *p, int i)
{
	enum spool_view stream = i ? SPOOL_STDERR : SPOOL_STDOUT;
	ssize_t n = read(p->fd[i], p->chunk, sizeof p->chunk);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	if (n <= 0) {
		close(p->fd[i]);
		p->fd[i] = -1;
		return false;
	}
	/* A full disk loses bytes, not the command: the place is marked. Out of memory even loses the mark. */
	if (spool_append(p->c->spool, stream, p->chunk, (size_t)n) < 0)
		(void)spool_append_gap(p->c->spool, stream, (uint64_t)n);
	tell(p->c);
	return true;
}

static void pump_end(struct pump *p)
{
	struct command *c = p->c;
	for (int i = 0; i < 2; i++)
		for (size_t reads = 0; p->fd[i] >= 0 && reads < LAST_DRAIN / PUMP_CHUNK && pump_read(p, i);)
			reads++;
	/* Constant once the leader was seen to be reaped, so the lock is not needed to read it. */
	if (c->timed_out && c->timeout_note) {
		AUTO_BUF note = BUF_INIT;
		buf_printf(&note, "Command timed out after %lldms", (long long)c->timeout_ms);
		if (!buf_error(&note))
			(void)spool_append(c->spool, SPOOL_STDERR, note.data, note.size);
	}
	script_remove(&c->script);
	shell_work_remove(&p->work);
	AUTO_UNLOCK(&c->lock);
	c->ended = true;
	c->end_number = atomic_fetch_add(&c->server->ends, 1);
	c->exit_code = c->timed_out                  ? 124
				   : WIFSIGNALED(c->wait_status) ? 128 + WTERMSIG(c->wait_status)
												 : WEXITSTATUS(c->wait_status);
	/* A signal that was sent by request and was the death of the leader is an end by request. */
	if (WIFSIGNALED(c->wait_status) && c->signalled == WTERMSIG(c->wait_status))
		c->cancelled = true;
	for (int view = SPOOL_BOTH; view <= SPOOL_STDERR; view++)
		c->end_size[view] = spool_size(c->spool, (enum spool_view)view);
	if (c->in_shell && session_is_deleted(c->session))
		c->session_lost = true;
	clock_gettime(CLOCK_REALTIME, &c->end_time);
	tell_all(c);
}

/*
 * TERM now, KILL at the end of the grace. With c->lock held. In a session's shell first INT, to the shell too, so that it drops the rest
 * of the command: it does so when its child has died of INT, not of TERM.
 */
static void killing_begin(struct pump *p, int64_t grace)
{
	struct command *c = p->c;
	if (p->kill_give_up >= 0)
		return;
	int64_t now = text_monotonic_ms(), at = now + grace;
	if (p->kill_at >= 0) {
		p->kill_at = at < p->kill_at ? at : p->kill_at;
		return;
	}
	c->killing = true;
	p->kill_begun = now;
	p->kill_at = at;
	if (c->in_shell) {
		/* A shell that has only begun cannot be interrupted yet: the next look tries again. */
		p->told_at = session_signal(c->session, c, &c->held, SIGINT, true) ? now : -1;
		p->interrupt_at = p->told_at < 0 ? now : now + INTERRUPT_ROUND_MS;
		p->nudge_at = now + INTERRUPT_MS;
		return;
	}
	/* What has a terminal expects this at its end; shells at a terminal are deaf to TERM. */
	if (c->terminal >= 0)
		command_signal_all(c, &c->held, SIGHUP);
	command_signal_all(c, &c->held, SIGTERM);
	/* What is stopped does not see the TERM otherwise. */
	command_signal_all(c, &c->held, SIGCONT);
}

/* Until then no child may die of anything but the INT that its shell gets too: the shell would go on with what follows. */
static int64_t spared_until(const struct pump *p)
{
	if (!p->c->in_shell || p->c->leader_reaped)
		return 0;
	return INTERRUPT_MS + (p->told_at < 0 ? p->kill_begun + TELL_MS : p->told_at);
}

/*
 * What the shell of a session needs besides. With c->lock held. A look is either for INT or for TERM: a child that has died of TERM
 * just when the shell got its INT would make that go on.
 */
static void killing_in_shell(struct pump *p, int64_t now)
{
	struct command *c = p->c;
	bool shell_too = p->kill_give_up >= 0 && now >= p->kill_at + SHELL_SPARE_MS;
	if (!c->leader_reaped && (now >= p->interrupt_at || shell_too)) {
		/* What it has started meanwhile is known by the first. */
		struct proc_set *set = p->told_at < 0 && !shell_too ? &c->held : NULL;
		bool told = session_signal(c->session, c, set, shell_too ? SIGKILL : SIGINT, true);
		p->interrupt_at = told ? now + INTERRUPT_ROUND_MS : now;
		if (told && p->told_at < 0)
			p->told_at = now;
		if (told)
			return;
	}
	if (now - p->kill_begun < INTERRUPT_MS || now < spared_until(p) || p->kill_give_up >= 0)
		return;
	if (!p->was_asked)
		command_signal_all(c, &c->held, SIGCONT);
	p->was_asked = true;
	/* Also to what has come since; nobody gets it twice. */
	command_signal_all(c, &c->held, SIGTERM);
}

/* One look at what is being killed. With c->lock held. */
static void killing_go_on(struct pump *p, int64_t now)
{
	struct command *c = p->c;
	bool left = !c->leader_reaped || proc_set_alive(&c->held);
	if (left && c->in_shell)
		killing_in_shell(p, now);
	if (left && now >= p->kill_at && now >= spared_until(p)) {
		if (p->kill_give_up < 0)
			p->kill_give_up = now + KILL_GIVE_UP_MS;
		command_signal_all(c, &c->held, SIGKILL);
	}
	if (!left || (p->kill_give_up >= 0 && now >= p->kill_give_up)) {
		p->kill_at = -1;
		c->killing = false;
		proc_set_release(&c->held);
		pthread_cond_broadcast(&c->changed);
	}
}

/* Looks at the clock and at what others asked for. */
static void pump_look(struct pump *p)
{
	struct command *c = p->c;
	int64_t now = text_monotonic_ms();
	AUTO_UNLOCK(&c->lock);
	if (c->leader_reaped && !p->leader_seen) {
		p->leader_seen = true;
		p->quiet_at = now + QUIET_MS;
	}
	/* Also one that came just before the end: what is held, or holds the pipes, is to go. */
	if (c->cancel_grace >= 0)
		killing_begin(p, c->cancel_grace);
	c->cancel_grace = -1;
	if (!c->leader_reaped && p->timeout_at >= 0 && now >= p->timeout_at) {
		p->timeout_at = -1;
		c->timed_out = true;
		killing_begin(p, TIMEOUT_GRACE_MS);
	}
	if (p->kill_at >= 0)
		killing_go_on(p, now);
}

static void earlier(int64_t *at, int64_t other)
{
	if (other >= 0 && (*at < 0 || other < *at))
		*at = other;
}

/* All that is in the pipes by now goes to the spool, for who waits in command_sync. */
static void pump_sync(struct pump *p)
{
	struct command *c = p->c;
	uint64_t wanted;
	{
		AUTO_UNLOCK(&c->lock);
		wanted = c->sync_wanted;
		if (c->sync_done == wanted)
			return;
	}
	for (int i = 0; i < 2; i++)
		for (size_t reads = 0; p->fd[i] >= 0 && reads < LAST_DRAIN / PUMP_CHUNK && pump_read(p, i);)
			reads++;
	AUTO_UNLOCK(&c->lock);
	c->sync_done = wanted;
	pthread_cond_broadcast(&c->changed);
}

/* How long poll may wait, in ms; -1: until something happens. */
static int pump_patience(const struct pump *p, bool ended)
{
	int64_t now = text_monotonic_ms(), at = -1;
	if (!p->leader_seen)
		earlier(&at, p->timeout_at);
	if (p->leader_seen && !ended)
		earlier(&at, p->quiet_at);
	if (p->kill_at >= 0)
		earlier(&at, now + KILL_ROUND_MS);
	if (p->joined)
		earlier(&at, p->nudge_at);
	if (at < 0)
		return -1;
	int64_t wait = at > now ? at - now : 0;
	return wait > 60000 ? 60000 : (int)wait;
}

/* The shell has told the end of its command, or has died, or the command was never its. */
static void pump_leave(struct pump *p, int status, bool lost)
{
	struct command *c = p->c;
	{
		AUTO_UNLOCK(&c->lock);
		c->session_lost = lost;
		command_leader_ended(c, status);
	}
	session_leave(c->session, c);
	p->joined = false;
	p->report = -1;
	for (int i = 0; i < 2; i++)
		if (p->hold[i] >= 0)
			close(steal_fd(&p->hold[i]));
}

/* Listens to the shell. */
static void pump_hear(struct pump *p)
{
	int status;
	bool lost;
	if (session_look(p->c->session, p->c, &p->report, &status, &lost)) {
		pump_leave(p, status, lost);
		return;
	}
	int64_t now = text_monotonic_ms();
	if (now >= p->nudge_at) {
		p->nudge_at = now + NUDGE_MS;
		session_nudge(p->c->session, p->c);
	}
}

static void pump_run(struct pump *p)
{
	struct command *c = p->c;
	bool ended = false;
	for (;;) {
		if (p->joined)
			pump_hear(p);
		pump_look(p);
		pump_sync(p);
		bool closed = p->fd[0] < 0 && p->fd[1] < 0;
		if (!ended && p->leader_seen && (closed || text_monotonic_ms() >= p->quiet_at)) {
			pump_end(p);
			ended = true;
			closed = p->fd[0] < 0 && p->fd[1] < 0;
		}
		if (ended && closed && p->kill_at < 0)
			return;
		struct pollfd fds[4] = {{.fd = p->fd[0], .events = POLLIN},
			{.fd = p->fd[1], .events = POLLIN}, {.fd = c->wake, .events = POLLIN},
			{.fd = p->report, .events = POLLIN}};
		if (poll(fds, 4, pump_patience(p, ended)) <= 0)
			continue;
		if (fds[2].revents) {
			uint64_t count;
			(void)!read(c->wake, &count, sizeof count); /* only empties it */
		}
		for (int i = 0; i < 2; i++)
			if (fds[i].revents)
				pump_read(p, i);
	}
}

static void *command_thread(void *arg)
{
	struct command *c = arg;
	AUTO_FREE struct pump *p = calloc(1, sizeof *p);
	int err = -ENOMEM;
	if (p) {
		*p = (struct pump){.c = c,
			.fd = {-1, -1},
			.hold = {-1, -1},
			.report = -1,
			.timeout_at = -1,
			.kill_at = -1,
			.kill_give_up = -1};
		err = pump_begin(p);
	}
	/* Only for want of memory for all this. */
	if (c->in_shell && err < 0)
		session_leave(c->session, c);
	if (c->in >= 0)
		close(steal_fd(&c->in));
	buf_release(&c->environment);
	{
		AUTO_UNLOCK(&c->lock);
		c->start_error = err;
		c->started = true;
		c->ended = err < 0;
		pthread_cond_broadcast(&c->changed);
	}
	if (!err) {
		p->nudge_at = text_monotonic_ms();
		if (c->timeout_ms >= 0)
			p->timeout_at = p->nudge_at + c->timeout_ms;
		p->nudge_at += NUDGE_MS;
		if (p->failed)
			pump_leave(p, p->failed, p->failed_lost);
		pump_run(p);
	}
	for (int i = 0; p && i < 2; i++)
		if (p->fd[i] >= 0)
			close(p->fd[i]);
	script_remove(&c->script);
	if (p)
		shell_work_remove(&p->work);
	spool_end(c->spool);
	{
		AUTO_UNLOCK(&c->lock);
		c->killing = false;
		pthread_cond_broadcast(&c->changed);
	}
	commands_thread_ended(c);
	return NULL;
}

int command_launch(struct command *c)
{
	pthread_attr_t attr;
	pthread_t thread;
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	int err = pthread_attr_setstacksize(&attr, THREAD_STACK);
	/* In the order of the starts, which the lock of the table makes. */
	if (c->in_shell)
		session_join(c->session, c);
	if (!err)
		err = pthread_create(&thread, &attr, command_thread, c);
	pthread_attr_destroy(&attr);
	if (err && c->in_shell)
		session_leave(c->session, c);
	return -err;
}
