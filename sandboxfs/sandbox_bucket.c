/*
 * Buckets of a sandbox: finds the driver that mounts them (bucket.h). No state of its own.
 */
#include <errno.h>
#include <string.h>

#include "bucket.h"
#include "sandbox_impl.h"

int sandbox_bucket_mount(struct sandbox *sb, struct call *c, const struct bucket *b)
{
	const struct server *s = sb->server;
	if (!s->driver->bucket_mount)
		return call_fault(c, ENOTSUP, NULL,
			"this server mounts no buckets: its API has no route for it; use local:, or run s3fs "
			"in the sandbox by exec where its image has it");
	int err = call_may_wait(c);
	if (!err)
		err = sandbox_ready(sb, c);
	/* What is there under the name now was written before. */
	if (!err)
		err = sandbox_barrier(sb, c);
	if (!err)
		err = s->driver->bucket_mount(s->driver_state, c, sb->name, b);
	if (!err)
		sandbox_invalidate(sb);
	return err;
}

int sandbox_bucket_unmount(struct sandbox *sb, struct call *c, const char *name)
{
	const struct server *s = sb->server;
	if (!s->driver->bucket_unmount)
		return -ENOENT;
	int err = call_may_wait(c);
	/* Some of it may lie in the bucket, and would be sent to the bare directory afterwards. */
	if (!err)
		err = sandbox_barrier(sb, c);
	if (!err)
		err = s->driver->bucket_unmount(s->driver_state, c, sb->name, name);
	if (!err)
		sandbox_invalidate(sb);
	return err;
}

void sandbox_bucket_each(
	struct sandbox *sb, bool (*cb)(const struct bucket *b, const char *dead, void *arg), void *arg)
{
	const struct server *s = sb->server;
	if (s->driver->bucket_each)
		s->driver->bucket_each(s->driver_state, sb->name, cb, arg);
}

struct lookup {
	const char *path;
	bool found;
};

static bool holds(const struct bucket *b, const char *dead, void *arg)
{
	struct lookup *l = arg;
	(void)dead;
	l->found = bucket_dirs_meet(b->dir, l->path) && strlen(l->path) > strlen(b->dir);
	return !l->found;
}

bool sandbox_bucket_holds(struct sandbox *sb, const char *path)
{
	struct lookup l = {.path = path};
	sandbox_bucket_each(sb, holds, &l);
	return l.found;
}
