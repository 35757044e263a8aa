/*
 * ports/: which ports of the sandbox are exposed, and where.
 *
 * Creating a name checks the number; the write (or touch) that follows exposes it. What is exposed lives as long as the sandbox that
 * answered then: another in its place has nothing exposed. Looking sends no request and starts nothing.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "ctl.h"
#include "process.h"
#include "relay.h"

enum { PORT_MIN = 1024, PORT_MAX = 65535, PORT_SERVER = 3000, TOKEN_MAX = 16 };

struct port {
	struct port *next;
	struct ports *ports; /* a reference */
	unsigned refs;       /* ports' lock, as all below */
	uint16_t number;
	bool exposed;     /* ports has a reference, a listener is open */
	bool opening;     /* somebody exposes it now */
	uint16_t listens; /* here */
	char *url;        /* the server's, that others can open; NULL: it is relayed to here */
	char *name;       /* NULL: none */
	char boot[40];
	const struct http_target
		*target; /* tells one life of the sandbox from the next; never followed */
};

struct ports {
	pthread_mutex_t lock;
	unsigned refs; /* the sandbox's and each port's */
	struct port *first;
	struct relay_set *relays;
	struct sandbox *sb; /* borrowed until ports_stop */
};

static const char ports_key;

static void *ports_make(struct sandbox *sb)
{
	struct ports *all = calloc(1, sizeof(*all));

	if (!all)
		return NULL;
	if (relay_set_new(sb, &all->relays) < 0) {
		free(all);
		return NULL;
	}
	pthread_mutex_init(&all->lock, NULL);
	all->refs = 1;
	all->sb = sb;
	return all;
}

/* Drops a reference and the lock. */
static void ports_put(struct ports *all)
{
	bool last = --all->refs == 0;

	pthread_mutex_unlock(&all->lock);
	if (!last)
		return;
	pthread_mutex_destroy(&all->lock);
	free(all);
}

/* Drops a reference and the lock. */
static void port_put_locked(struct port *p)
{
	struct ports *all = p->ports;

	if (--p->refs > 0) {
		pthread_mutex_unlock(&all->lock);
		return;
	}
	for (struct port **at = &all->first; *at; at = &(*at)->next) {
		if (*at == p) {
			*at = p->next;
			break;
		}
	}
	free(p->url);
	free(p->name);
	free(p);
	ports_put(all);
}

static void port_put(void *object)
{
	struct port *p = object;

	pthread_mutex_lock(&p->ports->lock);
	port_put_locked(p);
}

static void *port_hold(void *object)
{
	struct port *p = object;
	AUTO_UNLOCK(&p->ports->lock);

	p->refs++;
	return p;
}

/* Nothing leads to it from here any more; asks nobody. Harmless if it is not exposed. */
static void port_forget(struct port *p)
{
	struct ports *all = p->ports;

	pthread_mutex_lock(&all->lock);
	bool exposed = p->exposed;
	AUTO_FREE char *url = steal(p->url);
	p->exposed = false;
	if (exposed && !url && all->relays)
		relay_close(all->relays, p->number);
	if (exposed)
		port_put_locked(p);
	else
		pthread_mutex_unlock(&all->lock);
}

/* Takes it back; harmless if it is not exposed. 0, or the server has not taken its URL back, and it stays exposed. */
static int port_withdraw(struct port *p, struct call *c)
{
	struct ports *all = p->ports;

	pthread_mutex_lock(&all->lock);
	bool elsewhere = p->exposed && p->url;
	pthread_mutex_unlock(&all->lock);
	int err = elsewhere ? sandbox_unexpose(all->sb, c, p->number) : 0;
	if (!err)
		port_forget(p);
	return err;
}

static void ports_stop(void *data)
{
	struct ports *all = data;

	struct call c; /* nobody waits for it but the end of the mount */

	call_init(&c, 0);
	call_end_by(&c, sandbox_end_by(all->sb));
	relay_set_stop(all->relays);
	for (;;) {
		struct port *exposed = NULL;

		pthread_mutex_lock(&all->lock);
		for (struct port *p = all->first; p && !exposed; p = p->next)
			exposed = p->exposed ? p : NULL;
		if (exposed)
			exposed->refs++;
		pthread_mutex_unlock(&all->lock);
		if (!exposed)
			break;
		(void)port_withdraw(exposed, &c); /* a URL that stays ends with the sandbox */
		port_forget(exposed);
		port_put(exposed);
	}
	call_destroy(&c);
}

static void ports_release(void *data)
{
	struct ports *all = data;

	ports_stop(all);
	pthread_mutex_lock(&all->lock);
	struct relay_set *relays = steal(all->relays);
	pthread_mutex_unlock(&all->lock);
	relay_set_free(relays);
	pthread_mutex_lock(&all->lock);
	ports_put(all);
}

static bool port_number(const char *name, uint16_t *number)
{
	int64_t n;

	if (name[0] < '1' || name[0] > '9' || ctl_parse_number(name, PORT_MIN, PORT_MAX, &n) < 0 ||
		n == PORT_SERVER)
		return false;
	*number = (uint16_t)n;
	return true;
}

/* Is the sandbox still the one in which it was exposed? *exposed: was it? */
static bool port_lives(struct sandbox *sb, struct port *p, bool *exposed)
{
	char boot[sizeof(p->boot)];

	pthread_mutex_lock(&p->ports->lock);
	*exposed = p->exposed;
	const struct http_target *target = p->target;
	memcpy(boot, p->boot, sizeof(boot));
	pthread_mutex_unlock(&p->ports->lock);
	return *exposed && !sandbox_replaced_since(sb, boot) && target == sandbox_target(sb);
}

/* New reference to the port of this number; make: also if it is not there yet. NULL: none, or out of memory. */
static struct port *ports_get(struct ports *all, uint16_t number, bool make)
{
	AUTO_UNLOCK(&all->lock);
	struct port *p = all->first;

	while (p && p->number != number)
		p = p->next;
	if (p) {
		p->refs++;
		return p;
	}
	p = make ? calloc(1, sizeof(*p)) : NULL;
	if (!p)
		return NULL;
	p->ports = all;
	all->refs++;
	p->number = number;
	p->refs = 1;
	p->next = all->first;
	all->first = p;
	return p;
}

static int port_find(const struct ctl_ref *dir, struct call *c, const char *name, void **object)
{
	uint16_t number;
	struct ports *all;

	(void)c; /* nobody is asked */
	if (!port_number(name, &number))
		return -ENOENT;
	all = sandbox_attach(dir->sandbox, &ports_key, ports_make, ports_stop, ports_release);
	if (!all)
		return -ENOMEM;
	struct port *p = ports_get(all, number, false);
	if (!p)
		return -ENOENT;
	bool exposed;
	if (port_lives(dir->sandbox, p, &exposed)) {
		*object = p;
		return 0;
	}
	/* Of a sandbox that is gone, and its URL with it: to ask the server to take it back might start another. */
	if (exposed)
		port_forget(p);
	port_put(p);
	return -ENOENT;
}

static int port_each(
	const struct ctl_ref *dir, struct call *c, bool (*cb)(const char *name, void *arg), void *arg)
{
	struct ports *all =
		sandbox_attach(dir->sandbox, &ports_key, ports_make, ports_stop, ports_release);
	int after = 0;

	if (!all)
		return -ENOMEM;
	for (;;) {
		char name[16]; /* a number of ours */
		void *object;
		int next = 0;

		pthread_mutex_lock(&all->lock);
		for (struct port *p = all->first; p; p = p->next) {
			if (p->exposed && p->number > after && (!next || p->number < next))
				next = p->number;
		}
		pthread_mutex_unlock(&all->lock);
		if (!next)
			return 0;
		after = next;
		snprintf(name, sizeof(name), "%d", next);
		if (port_find(dir, c, name, &object) < 0)
			continue;
		port_put(object);
		if (!cb(name, arg))
			return 0;
	}
}

static int port_make(const struct ctl_ref *dir, struct call *c, const char *name, void **object)
{
	uint16_t number;
	struct ports *all;

	if (!port_number(name, &number))
		return call_fault(c, EINVAL, "INVALID_PORT", "ports/%s: not a port; use %d to %d but %d",
			name, PORT_MIN, PORT_MAX, PORT_SERVER);
	all = sandbox_attach(dir->sandbox, &ports_key, ports_make, ports_stop, ports_release);
	if (!all)
		return -ENOMEM;
	*object = ports_get(all, number, true);
	return *object ? 0 : -ENOMEM;
}

static int port_remove(const struct ctl_ref *dir, struct call *c, const char *name)
{
	void *object;

	if (port_find(dir, c, name, &object) < 0)
		return 0; /* what is not exposed is as it should be */
	int err = port_withdraw(object, c);
	port_put(object);
	return err;
}

/* ---- exposing ---- */

/* Any server may be asked for a command that nobody has: only sandboxd has that route, and the relay with it. */
static int port_can_relay(struct sandbox *sb, struct call *c)
{
	struct process_info info;
	int err = process_get(sb, c, ".relay", &info);

	process_info_release(&info);
	if (err == -ENOTSUP) {
		fault_clear(&c->fault);
		return call_fault(c, ENOTSUP, NULL,
			"this server has no relay to its ports; it takes sandboxd in the sandbox, or "
			"publish the port where you run the container");
	}
	return err == -ENOENT ? 0 : err;
}

/* On the server where it makes URLs and the mount wants them, else relayed to here. */
static int port_open(struct ports *all, struct call *c, const struct port *p, const char *name,
	const char *token, uint16_t *listens, char **url)
{
	int err = sandbox_expose(all->sb, c, p->number, name, token, url);

	if (err != -ENOTSUP || c->fault.err)
		return err;
	err = port_can_relay(all->sb, c);
	return err ? err : relay_open(all->relays, c, p->number, listens);
}

static int port_expose(
	const struct ctl_ref *ref, struct call *c, struct port *p, const char *name, const char *token)
{
	struct ports *all = p->ports;
	struct sandbox *sb = ref->sandbox;
	struct sandbox_status st;
	char *copy = name ? strdup(name) : NULL;
	AUTO_FREE char *url = NULL;
	uint16_t listens = 0;

	if (name && !copy)
		return -ENOMEM;
	int err = sandbox_ready(sb, c);
	pthread_mutex_lock(&all->lock);
	if (!err && p->exposed && !p->opening) { /* again: the URL stays, the name changes */
		char *old = p->name;
		p->name = copy;
		pthread_mutex_unlock(&all->lock);
		free(old);
		return 0;
	}
	if (!err && p->opening)
		err = call_fault(c, EBUSY, NULL, "somebody else exposes it at this moment");
	if (!err && !all->relays)
		err = -ECANCELED;
	p->opening = p->opening || !err;
	pthread_mutex_unlock(&all->lock);
	if (err) {
		free(copy);
		return err;
	}
	sandbox_get_status(sb, &st);
	err = port_open(all, c, p, name, token, &listens, &url);
	pthread_mutex_lock(&all->lock);
	p->opening = false;
	if (!err) {
		p->exposed = true;
		p->refs++;
		p->listens = listens;
		free(p->url);
		p->url = steal(url);
		free(p->name);
		p->name = steal(copy);
		memcpy(p->boot, st.boot, sizeof(p->boot));
		p->target = sandbox_target(sb);
	}
	pthread_mutex_unlock(&all->lock);
	free(copy);
	return err;
}

/* As the SDK has it. A URL on this host needs none: nobody else reaches it. */
static bool token_ok(const char *token)
{
	size_t n = strspn(token, "abcdefghijklmnopqrstuvwxyz0123456789_");

	return n > 0 && n <= TOKEN_MAX && token[n] == 0;
}

/* Lock held. */
static void port_url(const struct port *p, struct buf *out)
{
	if (p->url)
		buf_printf(out, "%s\n", p->url);
	else
		buf_printf(out, "http://127.0.0.1:%u/\n", p->listens);
}

static int port_call(
	const struct ctl_ref *ref, struct call *c, const char *line, size_t n, struct buf *answer)
{
	struct port *p = ref->object;
	AUTO_FREE char **argv = NULL;
	const char *name = NULL, *token = NULL;
	int argc;
	int err = ctl_split(c, line, n, &argc, &argv);

	for (int i = 0; !err && i < argc; i++) {
		if (strncmp(argv[i], "token=", 6) == 0) {
			token = argv[i] + 6;
			if (!token_ok(token))
				err =
					call_fault(c, EINVAL, NULL, "not a token: use 1 to %d of a-z 0-9 _", TOKEN_MAX);
		} else if (i == 0) {
			name = argv[i];
		} else {
			err = call_fault(c, EINVAL, NULL, "not understood: %s; use [NAME] [token=T]", argv[i]);
		}
	}
	if (!err)
		err = port_expose(ref, c, p, name, token);
	if (err)
		return err;
	AUTO_UNLOCK(&p->ports->lock);
	port_url(p, answer);
	return 0;
}

static int port_show(const struct ctl_ref *ref, struct call *c, struct buf *out)
{
	struct port *p = ref->object;

	(void)c; /* nobody is asked */
	AUTO_UNLOCK(&p->ports->lock);
	if (p->exposed)
		port_url(p, out);
	return 0;
}

static int port_touch(const struct ctl_ref *ref, struct call *c)
{
	struct port *p = ref->object;

	pthread_mutex_lock(&p->ports->lock);
	bool exposed = p->exposed;
	pthread_mutex_unlock(&p->ports->lock);
	return exposed ? 0 : port_expose(ref, c, p, NULL, NULL);
}

static const struct ctl_row port_row = {
	.name = "PORT",
	.mode = 0600,
	.kind = CTL_CALL,
	.grammar = "W [NAME] [token=T] exposes it (touch: without a name); R its URL; rm -f takes it "
			   "back (also "
			   "if it is not exposed)",
	.call = port_call,
	.show = port_show,
	.touch = port_touch,
};

static const struct ctl_set port_objects = {
	.row = &port_row,
	.find = port_find,
	.each = port_each,
	.get = port_hold,
	.put = port_put,
	.make = port_make,
	.remove = port_remove,
};

static const struct ctl_row port_set_rows[] = {{.name = NULL}};

const struct ctl_dir ctl_ports_dir = {
	.help = "Exposed ports, 1024 to 65535 but 3000.",
	.rows = port_set_rows,
	.set = &port_objects,
};
