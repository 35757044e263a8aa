/*
 * The container driver: one server that somebody else runs, at http://HOST:PORT or unix:/PATH, seen as one sandbox, `default`.
 * Starts and ends nothing; a start only says where it listens. Owns no thread and no connection.
 */
#include <errno.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include "cleanup.h"
#include "driver.h"
#include "token.h"

static const char only[] = "default";

struct container {
	char *base;
	char *unix_path; /* NULL: TCP */
	char *token;     /* NULL: none */
};

static void container_close(void *state)
{
	struct container *k = state;
	if (!k)
		return;
	free(k->base);
	free(k->unix_path);
	token_free(k->token);
	free(k);
}

/* http://HOST[:PORT][/], HOST a name, an address, or [v6]: what curl is given must not hide a user, a query or another host. */
static int check_url(struct call *c, const char *url)
{
	static const char pattern[] =
		"^http://(\\[[0-9A-Fa-f:.]+\\]|[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?)(:[0-9]{1,5})?/?$";
	regex_t re;
	if (regcomp(&re, pattern, REG_EXTENDED | REG_NOSUB))
		return -ENOMEM;
	int err = regexec(&re, url, 0, NULL, 0);
	regfree(&re);
	if (err)
		return call_fault(
			c, EINVAL, NULL, "%s: a container is named http://HOST:PORT or unix:/PATH", url);
	const char *colon = strrchr(url + strlen("http://"), ':');
	if (colon && !strchr(colon, ']')) {
		long port = strtol(colon + 1, NULL, 10);
		if (port < 1 || port > 65535)
			return call_fault(c, EINVAL, NULL, "%s: a port is a number from 1 to 65535", url);
	}
	return 0;
}

static int set_address(struct container *k, struct call *c, const char *server)
{
	struct sockaddr_un address;
	if (strncmp(server, "unix:", 5)) {
		int err = check_url(c, server);
		if (err)
			return err;
		k->base = strdup(server);
		if (k->base && k->base[strlen(k->base) - 1] == '/')
			k->base[strlen(k->base) - 1] = 0;
		return k->base ? 0 : -ENOMEM;
	}
	const char *path = server + 5;
	if (*path != '/')
		return call_fault(
			c, EINVAL, NULL, "%s: give the socket's absolute path: unix:/PATH", server);
	if (strlen(path) >= sizeof address.sun_path)
		return call_fault(c, ENAMETOOLONG, NULL, "%s: a socket's path has room for %zu bytes",
			server, sizeof address.sun_path - 1);
	k->unix_path = strdup(path);
	k->base = strdup("http://localhost");
	return k->unix_path && k->base ? 0 : -ENOMEM;
}

static int container_open(const struct options *o, struct call *c, void **state)
{
	struct container *k = calloc(1, sizeof *k);
	if (!k)
		return -ENOMEM;
	int err = set_address(k, c, o->server);
	/* Only one that is named for it: to the official server a token is the name of a session. */
	if (!err)
		err = token_read(o, c, false, &k->token);
	if (err) {
		container_close(k);
		return err;
	}
	*state = k;
	return 0;
}

static int container_list(void *state, bool (*cb)(const char *name, void *arg), void *arg)
{
	(void)state;
	cb(only, arg); /* whether it wants more does not matter: there is one */
	return 0;
}

static int container_probe(void *state, const char *name)
{
	(void)state;
	return strcmp(name, only) ? -ENOENT : 0;
}

static int container_create(void *state, struct call *c, const char *name)
{
	(void)state;
	return call_fault(c, EPERM, NULL,
		"%s: this server is one container, which shows as `default`; others cannot be made here",
		name);
}

static int container_destroy(void *state, struct call *c, const char *name)
{
	(void)state;
	return call_fault(
		c, EPERM, NULL, "%s: this container is not ours to end; end it where it was started", name);
}

static int container_start(void *state, struct call *c, const char *name, void (*died)(void *arg),
	void *arg, struct driver_instance *out)
{
	(void)c;
	(void)died; /* nobody tells of a container's end: requests find out */
	(void)arg;
	struct container *k = state;
	if (strcmp(name, only))
		return -ENOENT;
	AUTO_FREE char *base = strdup(k->base);
	AUTO_FREE char *path = k->unix_path ? strdup(k->unix_path) : NULL;
	AUTO_FREE char *token = k->token ? strdup(k->token) : NULL;
	if (!base || (k->unix_path && !path) || (k->token && !token))
		return -ENOMEM;
	*out = (struct driver_instance){
		.target = {.base = steal(base), .unix_path = steal(path), .token = steal(token)}};
	snprintf(out->network, sizeof out->network, "its own");
	return 0;
}

static void container_stop(void *state, const char *name, struct driver_instance *inst)
{
	(void)state;
	(void)name;
	free(inst->target.base);
	free(inst->target.unix_path);
	free(inst->target.token);
	*inst = (struct driver_instance){0};
}

static int container_in_use(void *state, const char *name, char *detail, size_t size)
{
	(void)state;
	(void)name;
	(void)detail;
	(void)size;
	return 0; /* any number of clients may share it */
}

const struct driver_ops container_driver = {
	.kind = "container",
	.id_names = "^default$",
	.many = false,
	.starts = false,
	.open = container_open,
	.close = container_close,
	.list = container_list,
	.probe = container_probe,
	.create = container_create,
	.destroy = container_destroy,
	.start = container_start,
	.stop = container_stop,
	.in_use = container_in_use,
};
