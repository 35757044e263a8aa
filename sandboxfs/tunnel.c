/*
 * Tunnels: see tunnel.h.
 */
#include "tunnel.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cleanup.h"
#include "log.h"
#include "mux.h"
#include "wire.h"

enum {
	GREETING_MS = 30000, /* from the open terminal to an answering sandboxd */
	NOISE_MOST = 64 << 10,
	PAUSE_FIRST_MS = 200,
	PAUSE_MOST_MS = 5000,
	STEADY_MS = 2000, /* a wire that lasted so long worked */
	SESSION = 24
};

struct tunnel {
	struct tunnel_way way;
	pthread_t thread;
	struct call call; /* the thread's; cancelled at the end */
	int stop;         /* eventfd, readable from tunnel_close on */
	int listener;
	char *socket;
	_Atomic unsigned wires; /* made and broken; odd: there is one */
	pthread_mutex_t lock;   /* of the two that follow */
	struct call *leaving;   /* who says goodbye; NULL: nobody */
	int64_t leave_by_ms;    /* from tunnel_close on; 0: before it */
	/* The thread's, and before it the opener's: */
	char *attach; /* the program in the sandbox; NULL: to be looked for */
	char session[SESSION];
	struct wire *wire;
};

/* --- one wire --- */

static int name_session(struct tunnel *t)
{
	uint64_t random;
	if (getrandom(&random, sizeof random, 0) != (ssize_t)sizeof random)
		return -EIO;
	snprintf(t->session, sizeof t->session, "sbxfs-%016llx", (unsigned long long)random);
	return 0;
}

/* Says goodbye to a terminal. Only where the sandbox is known to run: of one that is gone it would start another. */
static void forget(struct tunnel *t, char *session)
{
	struct call c;
	if (!session[0])
		return;
	/* Not the thread's: it may be cancelled, and the server's terminals are to be ended all the same. */
	call_init(&c, 0);
	pthread_mutex_lock(&t->lock);
	t->leaving = &c;
	call_end_by(&c, t->leave_by_ms ? t->leave_by_ms : call_now_ms() + TUNNEL_LEAVE_MS);
	pthread_mutex_unlock(&t->lock);
	t->way.leave(t->way.arg, &c, session);
	pthread_mutex_lock(&t->lock);
	t->leaving = NULL;
	pthread_mutex_unlock(&t->lock);
	call_destroy(&c);
	session[0] = 0;
}

static void leave(struct tunnel *t)
{
	wire_close(steal(t->wire));
	forget(t, t->session);
}

/* A terminal, and the greeting on it. -EPIPE, -EPROTO: the program may be missing. */
static int try_wire(struct tunnel *t, struct call *c, int64_t deadline)
{
	int err = name_session(t);
	if (err)
		return err;
	AUTO_FREE char *path = t->way.terminal(t->way.arg, t->session, t->attach);
	if (!path)
		return -ENOMEM;
	err = wire_open(c, t->way.target, path, deadline, &t->wire);
	if (err) {
		t->session[0] = 0; /* none was made, or nobody can tell */
		return err;
	}
	int64_t until = call_now_ms() + GREETING_MS;
	err = wire_await(
		t->wire, c, MUX_GREETING, MUX_REFUSAL, NOISE_MOST, until < deadline ? until : deadline);
	if (err == -ETIMEDOUT)
		call_fault(c, ETIMEDOUT, NULL,
			"%s: the terminal does not run what it was asked to, after %d s", t->way.target->base,
			GREETING_MS / 1000);
	if (err)
		leave(t);
	return err;
}

static int establish_once(struct tunnel *t, struct call *c, int64_t deadline)
{
	for (bool fresh = false;; fresh = true) {
		bool known = t->attach != NULL;
		int err = known ? 0 : carry_in(&t->way.carrier, c, deadline, &t->attach);
		if (!err)
			err = try_wire(t, c, deadline);
		if (!err)
			return 0;
		if (err == -EPIPE || err == -EPROTO || err == -EIO || err == -ETIMEDOUT)
			free(steal(t->attach)); /* another container may be there now */
		if (fresh || !known || t->attach)
			return err;
		fault_clear(&c->fault);
	}
}

static bool never(void *arg)
{
	(void)arg;
	return false;
}

static bool passing(int err)
{
	return err == -EAGAIN || err == -ECONNRESET;
}

/* What was only passing has lasted all the time. The last failure's sentence says what it was. */
static int never_up(const struct tunnel *t, struct call *c)
{
	char prefix[80]; /* a number of ours */
	call_fault(c, EHOSTDOWN, NULL, "%s: it breaks off all the time", t->way.target->base);
	c->fault.err = EHOSTDOWN;
	snprintf(prefix, sizeof prefix,
		"not up within start= (%lld s): ", (long long)t->way.start_ms / 1000);
	call_fault_prefix(c, prefix);
	return -EHOSTDOWN;
}

/* A wire that works, however long a cold container takes. */
static int establish(struct tunnel *t, struct call *c)
{
	int64_t deadline = call_now_ms() + t->way.start_ms, pause = PAUSE_FIRST_MS;
	for (;;) {
		int err = establish_once(t, c, deadline);
		if (err == -ETIMEDOUT)
			call_fault(c, ETIMEDOUT, NULL, "%s: no answer within start= (%lld s)",
				t->way.target->base, (long long)t->way.start_ms / 1000);
		if (!passing(err))
			return err;
		if (call_now_ms() + pause >= deadline)
			return never_up(t, c);
		if (call_wait(c, never, NULL, call_now_ms() + pause) == -EINTR)
			return -EINTR;
		fault_clear(&c->fault);
		pause = pause * 2 < PAUSE_MOST_MS ? pause * 2 : PAUSE_MOST_MS;
	}
}

/* --- the thread --- */

static bool stopped(const struct tunnel *t)
{
	struct pollfd p = {t->stop, POLLIN, 0};
	return poll(&p, 1, 0) > 0;
}

static int serve(struct tunnel *t)
{
	struct mux_spec spec = {
		.carrier = wire_carrier(t->wire), .listener = t->listener, .stop_fd = t->stop};
	return mux_run(&spec);
}

/*
 * Ends the connections that waited while there was no wire: their requests were meant for whom the old one led to. Who asks again looks
 * first who answers now.
 */
static void drop_waiting(const struct tunnel *t)
{
	struct pollfd p = {t->listener, POLLIN, 0};
	while (poll(&p, 1, 0) > 0) {
		AUTO_FD int fd = accept4(t->listener, NULL, NULL, SOCK_CLOEXEC);
		if (fd < 0)
			break;
	}
}

/* A wire again; what fails is logged. Who waited is broken off in any case: who has gone away by then is not to count as a use again. */
static int renew(struct tunnel *t)
{
	int err = establish(t, &t->call);
	drop_waiting(t);
	if (!err) {
		atomic_fetch_add(&t->wires, 1);
		return 0;
	}
	log_error("%s: no link: %s", t->way.target->base,
		t->call.fault.message ? t->call.fault.message : strerror(-err));
	fault_clear(&t->call.fault);
	return err;
}

/* Until somebody connects: a sandbox that is gone is not started once more for nobody. The end of the tunnel ends it. */
static void await_use(const struct tunnel *t)
{
	struct pollfd p[] = {{t->listener, POLLIN, 0}, {t->stop, POLLIN, 0}};
	while (poll(p, 2, -1) < 0 && errno == EINTR)
		;
}

/* Before another try, longer each time; the end of the tunnel ends it. */
static void rest(const struct tunnel *t, int64_t *pause)
{
	struct pollfd p = {t->stop, POLLIN, 0};
	(void)poll(&p, 1, (int)*pause); /* one that fails only waits less */
	*pause = *pause * 2 < PAUSE_MOST_MS ? *pause * 2 : PAUSE_MOST_MS;
}

static void *tunnel_main(void *arg)
{
	struct tunnel *t = arg;
	int64_t pause = PAUSE_FIRST_MS;
	while (!stopped(t)) {
		int64_t since = call_now_ms();
		int err = serve(t);
		atomic_fetch_add(&t->wires, 1);
		wire_close(steal(t->wire));
		if (!err)
			break;
		log_info("%s: the terminal's link broke (%s); the next use makes it anew",
			t->way.target->base, strerror(-err));
		/*
		 * A server, or who owns the sandbox, may let each be made and break it: not as fast as we can. And where the sandbox is just being
		 * ended, a request that is too early has it started once more, for nobody.
		 */
		if (call_now_ms() - since >= STEADY_MS)
			pause = PAUSE_FIRST_MS;
		char old[SESSION];
		memcpy(old, t->session, sizeof old);
		t->session[0] = 0;
		rest(t, &pause);
		await_use(t);
		while (!stopped(t) && renew(t)) {
			rest(t, &pause);
			await_use(t);
		}
		if (t->wire) /* one of another sandbox is not there, which does no harm */
			forget(t, old);
	}
	leave(t);
	return NULL;
}

/* --- open and close --- */

static void tunnel_free(struct tunnel *t)
{
	wire_close(t->wire);
	if (t->listener >= 0)
		close(t->listener);
	if (t->socket)
		unlink(t->socket); /* in a directory of ours; what stays is removed by the next program */
	if (t->stop >= 0)
		close(t->stop);
	call_destroy(&t->call);
	pthread_mutex_destroy(&t->lock);
	free(t->socket);
	free(t->attach);
	free(t);
}

int tunnel_open(
	struct call *c, const struct tunnel_way *way, struct run_dir *dir, struct tunnel **out)
{
	struct tunnel *t = calloc(1, sizeof *t);
	if (!t)
		return -ENOMEM;
	t->way = *way;
	t->listener = -1;
	call_init(&t->call, 0);
	pthread_mutex_init(&t->lock, NULL);
	atomic_init(&t->wires, 1);
	t->stop = eventfd(0, EFD_CLOEXEC);
	int err = t->stop < 0 ? -errno : run_dir_listen(dir, c, &t->socket, &t->listener);
	if (!err)
		err = establish(t, c);
	if (!err) {
		/* Signals are for main's thread. */
		sigset_t all, old;
		sigfillset(&all);
		pthread_sigmask(SIG_BLOCK, &all, &old);
		err = -pthread_create(&t->thread, NULL, tunnel_main, t);
		pthread_sigmask(SIG_SETMASK, &old, NULL);
		if (err)
			leave(t);
	}
	if (err) {
		tunnel_free(t);
		return err;
	}
	*out = t;
	return 0;
}

unsigned tunnel_wires(const struct tunnel *t)
{
	return atomic_load(&t->wires);
}

const char *tunnel_socket(const struct tunnel *t)
{
	return t->socket;
}

void tunnel_close(struct tunnel *t, int64_t by_ms)
{
	const uint64_t one = 1;
	if (!t)
		return;
	pthread_mutex_lock(&t->lock);
	t->leave_by_ms = by_ms;
	if (t->leaving)
		call_end_by(t->leaving, by_ms);
	pthread_mutex_unlock(&t->lock);
	call_cancel(&t->call);
	(void)!write(t->stop, &one, sizeof one); /* a fresh eventfd has room for a 1 */
	pthread_join(t->thread, NULL);
	tunnel_free(t);
}
