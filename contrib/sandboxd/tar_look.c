/*
 * Can all that is in a directory be removed? A walk over it that changes nothing, before tar_replace.c changes anything. Owns the walk.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "tar_chain.h"
#include "tar_replace.h"

struct level {
	struct buf names; /* of the directories in it, each with its NUL */
	size_t at;
	size_t path_size;
};

struct look {
	struct tar_chain chain;
	struct level *levels; /* of the chain's directories */
	size_t capacity;
	struct buf path; /* of the deepest, with a slash after it; of the top "" */
	struct statx as;
};

static int refuse(
	struct look *k, const char *name, int err, const char *why, struct tar_result *result)
{
	AUTO_BUF path = BUF_INIT;
	buf_printf(&path, "%s%s", k->path.data ? k->path.data : "", name);
	result->path = buf_steal(&path);
	result->why = strdup(why);
	return err;
}

static int look_at(int dir, const char *name, struct statx *st)
{
	return statx(dir, name, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_EMPTY_PATH,
			   STATX_BASIC_STATS | STATX_MNT_ID, st) < 0
			   ? -errno
			   : 0;
}

static bool is_mounted(const struct look *k, const struct statx *st)
{
	return (st->stx_attributes & STATX_ATTR_MOUNT_ROOT) ||
		   st->stx_dev_major != k->as.stx_dev_major || st->stx_dev_minor != k->as.stx_dev_minor ||
		   ((st->stx_mask & k->as.stx_mask & STATX_MNT_ID) && st->stx_mnt_id != k->as.stx_mnt_id);
}

/* One name of the directory. */
static int entry(
	struct look *k, int dir, const char *name, struct buf *names, struct tar_result *result)
{
	struct statx st;
	int err = look_at(dir, name, &st);
	if (err == -ENOENT)
		return 0;
	if (err)
		return refuse(k, name, err, "it cannot be looked at; nothing was changed", result);
	if (is_mounted(k, &st))
		return refuse(k, name, -EBUSY,
			"something is mounted there, and would be emptied; unmount it first. Nothing was "
			"changed",
			result);
	if (S_ISDIR(st.stx_mode))
		buf_add(names, name, strlen(name) + 1);
	return buf_error(names);
}

/* What is in the directory (skip: the names that are not looked at). */
static int list(struct look *k, int dir, const struct statx *self, char *const *skip,
	struct buf *names, struct tar_result *result)
{
	AUTO_FD int copy = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = copy < 0 ? NULL : fdopendir(copy);
	if (!d)
		/* Without x of its owner's: that is put right before it is emptied. */
		return errno == EACCES && self->stx_uid == geteuid() ? 0 : -errno;
	(void)steal_fd(&copy);
	int err = 0;
	bool some = false;
	errno = 0;
	for (struct dirent *e; !err && (e = readdir(d)); errno = 0) {
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0 ||
			replace_skips(skip, e->d_name))
			continue;
		some = true;
		err = entry(k, dirfd(d), e->d_name, names, result);
	}
	if (!err)
		err = -errno;
	closedir(d);
	if (!err && some && self->stx_uid != geteuid() &&
		faccessat(dir, ".", W_OK | X_OK, AT_EACCESS) < 0)
		return refuse(k, ".", -errno,
			"it belongs to another, who lets nobody remove what is in it; nothing was changed",
			result);
	return err;
}

/* Puts the directory (taken) on the stack. name NULL: the top. */
static int enter(
	struct look *k, const char *name, int given, char *const *skip, struct tar_result *result)
{
	AUTO_FD int fd = given;
	AUTO_BUF names = BUF_INIT;
	struct statx self;
	int err = look_at(fd, "", &self);
	if (err)
		return err;
	if (!name)
		k->as = self;
	size_t before = k->path.size, depth = k->chain.depth;
	if (name)
		buf_printf(&k->path, "%s/", name);
	err = list(k, fd, &self, skip, &names, result);
	if (!err && depth == k->capacity) {
		size_t capacity = depth ? depth * 2 : 16;
		struct level *levels = realloc(k->levels, capacity * sizeof *levels);
		if (levels) {
			k->levels = levels;
			k->capacity = capacity;
		} else {
			err = -ENOMEM;
		}
	}
	if (!err)
		err = buf_error(&k->path);
	if (!err)
		err = chain_down(&k->chain, name, steal_fd(&fd));
	if (err)
		return err;
	k->levels[depth] = (struct level){.names = names, .path_size = before};
	names = (struct buf)BUF_INIT;
	return 0;
}

static void leave(struct look *k)
{
	struct level *l = &k->levels[k->chain.depth - 1];
	chain_up(&k->chain);
	buf_release(&l->names);
	k->path.size = l->path_size;
	if (k->path.data)
		k->path.data[k->path.size] = '\0';
}

static int step(struct look *k, struct tar_result *result)
{
	struct level *l = &k->levels[k->chain.depth - 1];
	if (l->at == l->names.size) {
		leave(k);
		return 0;
	}
	AUTO_FREE char *name = strdup(l->names.data + l->at);
	if (!name)
		return -ENOMEM;
	l->at += strlen(name) + 1;
	int dir = chain_fd(&k->chain);
	if (dir < 0)
		return dir == -ENOENT ? 0 : dir;
	int fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	struct stat st;
	if (fd >= 0)
		return enter(k, name, fd, NULL, result);
	if (errno == ENOENT || errno == ENOTDIR || errno == ELOOP)
		return 0;
	int err = -errno;
	if (err == -EACCES && fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
		st.st_uid == geteuid())
		return 0; /* its owner may open it up; what were mounted in it, the removal would leave alone */
	return refuse(k, name, err, "it cannot be looked at; nothing was changed", result);
}

int replace_look(int root, char *const *skip, struct tar_result *result)
{
	struct look k = {0};
	int copy = openat(root, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int err = copy < 0 ? -errno : enter(&k, NULL, copy, skip, result);
	while (!err && k.chain.depth)
		err = step(&k, result);
	while (k.chain.depth)
		leave(&k);
	chain_release(&k.chain);
	free(k.levels);
	buf_release(&k.path);
	return err;
}
