/*
 * A directory gets the content of an archive, all of it or nothing; see tar.h. Stateless.
 *
 * Everything is unpacked into a directory beside what is there. Then what is there moves into a second one, entry by entry, and the
 * new entries out of the first; whatever fails until then is undone by moving the same way back. Only when all stands does
 * the second one go, with what is in it. What others make in the directory meanwhile counts as new content.
 */
#include "tar_replace.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "text.h"
#include "tree_remove.h"

enum {
	/* Directories that cannot be moved whole (EXDEV: lower ones of an overlay) move by what is in them, so deep and no deeper. */
	PARTS_MAX = 64,
	PASSES = 16
};

struct beside {
	char name[24];
	int fd; /* -1: it is not there */
};

bool replace_skips(char *const *skip, const char *name)
{
	for (; skip && *skip; skip++)
		if (strcmp(*skip, name) == 0)
			return true;
	return false;
}

static int say(struct tar_result *r, int err, const char *what, const char *rest)
{
	AUTO_BUF why = BUF_INIT;
	if (r->why)
		return err;
	buf_printf(
		&why, "%s%s%s", what ? what : strerrordesc_np(-err), rest ? ": " : "", rest ? rest : "");
	r->why = buf_steal(&why);
	return err;
}

/* --- moving --- */

static int move_all(int from, int to, char *const *skip, struct tar_result *r, int depth);

/* A directory that lacks its owner's w cannot leave its parent: it gets it, and loses it again. */
static int move_opened(int from, const char *name, int to)
{
	struct stat st;
	if (fstatat(from, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	if (!S_ISDIR(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & 0700) == 0700)
		return -EACCES;
	if (fchmodat(from, name, (st.st_mode & 07777) | 0700, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	int err = renameat(from, name, to, name) < 0 ? -errno : 0;
	if (fchmodat(err ? from : to, name, st.st_mode & 07777, AT_SYMLINK_NOFOLLOW) < 0 && !err)
		err = -errno;
	return err;
}

static int move_parts(int from, const char *name, int to, int depth)
{
	const int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
	struct tar_result ignored = {0, 0, NULL, NULL};
	AUTO_FD int source = openat(from, name, flags);
	struct stat st;
	if (source < 0 || fstat(source, &st) < 0)
		return -errno;
	bool made = mkdirat(to, name, 0700) == 0;
	if (!made && errno != EEXIST)
		return -errno;
	AUTO_FD int target = openat(to, name, flags);
	if (target < 0)
		return -errno;
	if (made && ((geteuid() == 0 && fchown(target, st.st_uid, st.st_gid) < 0) ||
					fchmod(target, (st.st_mode & 07777) | 0700) < 0))
		return -errno;
	int err = move_all(source, target, NULL, &ignored, depth + 1);
	tar_result_release(&ignored);
	struct timespec times[2] = {st.st_atim, st.st_mtim};
	if (!err && made && (fchmod(target, st.st_mode & 07777) < 0 || futimens(target, times) < 0))
		err = -errno;
	return err ? err : unlinkat(from, name, AT_REMOVEDIR) < 0 ? -errno : 0;
}

static int move(int from, const char *name, int to, int depth)
{
	int err = renameat(from, name, to, name) < 0 ? -errno : 0;
	if (err == -EACCES)
		err = move_opened(from, name, to);
	/* ENOTEMPTY: on the way back a directory may be in both places. */
	if ((err == -EXDEV || err == -ENOTEMPTY || err == -EEXIST) && depth < PARTS_MAX) {
		int parts = move_parts(from, name, to, depth);
		err = parts == -ENOTDIR ? err : parts;
	}
	return err == -ENOENT ? 0 : err;
}

/* Moves every entry but those of skip. It stops at the first error and says where. */
static int move_all(int from, int to, char *const *skip, struct tar_result *r, int depth)
{
	int err = 0;
	bool some = true;
	for (int i = 0; !err && some && i < PASSES; i++) {
		some = false;
		int copy = openat(from, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		DIR *d = copy < 0 ? NULL : fdopendir(copy);
		if (!d) {
			err = -errno;
			if (copy >= 0)
				close(copy);
			return err;
		}
		errno = 0;
		for (struct dirent *e; !err && (e = readdir(d)); errno = 0) {
			if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0 ||
				replace_skips(skip, e->d_name))
				continue;
			some = true;
			err = move(from, e->d_name, to, depth);
			if (err < 0 && !r->path)
				r->path = strdup(e->d_name);
		}
		if (!err)
			err = -errno;
		closedir(d);
	}
	return err;
}

/* --- the two beside --- */

static int beside_make(int root, struct beside *b)
{
	strcpy(b->name, ".sandboxd-");
	text_random(b->name + strlen(b->name), 12);
	if (mkdirat(root, b->name, 0700) < 0)
		return -errno;
	b->fd = openat(root, b->name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return b->fd < 0 ? -errno : 0;
}

/* Removes it with all that is in it. */
static int beside_drop(int root, struct beside *b)
{
	if (b->fd < 0)
		return 0;
	(void)fchmod(b->fd, 0700); /* it is ours; an archive may have given it another mode */
	int err = tree_empty(b->fd);
	close(b->fd);
	b->fd = -1;
	if (!err && unlinkat(root, b->name, AT_REMOVEDIR) < 0)
		err = -errno;
	return err;
}

/* The old out, the new in. What fails is undone. */
static int swap(int root, struct beside *fresh, struct beside *aside, struct tar_result *r)
{
	char *const skip[] = {fresh->name, aside->name, NULL};
	struct tar_result ignored = {0, 0, NULL, NULL};
	int err = move_all(root, aside->fd, skip, r, 0), back = 0;
	if (!err) {
		err = move_all(fresh->fd, root, NULL, r, 0);
		if (err)
			back = move_all(root, fresh->fd, skip, &ignored, 0);
	}
	if (!err)
		return 0;
	if (!back)
		back = move_all(aside->fd, root, NULL, &ignored, 0);
	tar_result_release(&ignored);
	/* By rmdir: had anything stayed in it, it would stay. */
	if (!back && unlinkat(root, aside->name, AT_REMOVEDIR) < 0)
		back = -errno;
	close(aside->fd);
	aside->fd = -1;
	if (!back)
		return say(r, err, NULL, "nothing was changed");
	AUTO_BUF where = BUF_INIT;
	buf_printf(&where, "it could not be undone (%s): what was there is in %s",
		strerrordesc_np(-back), aside->name);
	return say(r, err, NULL, where.data);
}

/* All stands: the old goes, and the top gets its mode and times. */
static int finish(int root, struct beside *fresh, struct beside *aside, const struct stat *top,
	struct tar_result *r)
{
	struct timespec times[2] = {top->st_atim, top->st_mtim};
	int left = beside_drop(root, aside), err = beside_drop(root, fresh);
	/* A directory of another's keeps the mode that he gave it. */
	if (!err && (fchmod(root, top->st_mode & 07777) < 0 || futimens(root, times) < 0) &&
		errno != EPERM)
		err = -errno;
	if (left < 0) {
		free(r->path);
		r->path = strdup(aside->name);
		return say(r, left, NULL,
			"everything was unpacked and is in its place, but what was there before could not be "
			"removed "
			"whole; here is the rest of it");
	}
	return err < 0 ? say(r, err, NULL, "everything was unpacked and is in its place") : 0;
}

struct unpacking {
	tar_unpacker *by;
	void *arg;
	const char *dir;
};

static int unpack(const struct unpacking *u, const struct beside *to, struct tar_result *r)
{
	AUTO_BUF where = BUF_INIT;
	buf_printf(&where, "%s/%s", u->dir, to->name);
	return buf_error(&where) < 0 ? -ENOMEM : u->by(u->arg, to->fd, where.data, r);
}

static int replace(const struct unpacking *u, int root, struct beside *fresh, struct beside *aside,
	struct tar_result *r)
{
	struct stat top;
	char *const skip[] = {fresh->name, aside->name, NULL};
	if (fstat(root, &top) < 0)
		return -errno;
	/* Now, because an upload takes long, and again when it has come. */
	int err = replace_look(root, NULL, r);
	if (!err)
		err = beside_make(root, fresh);
	/* Of an archive that does not tell it, the top keeps its mode. */
	if (!err && fchmod(fresh->fd, (top.st_mode & 07777) | 0700) < 0)
		err = -errno;
	if (!err)
		err = unpack(u, fresh, r);
	if (!err && (fstat(fresh->fd, &top) < 0 || fchmod(fresh->fd, 0700) < 0))
		err = -errno;
	if (!err)
		err = replace_look(root, skip, r);
	if (!err)
		err = beside_make(root, aside);
	if (!err)
		err = swap(root, fresh, aside, r);
	return err ? err : finish(root, fresh, aside, &top, r);
}

int tar_replace_by(tar_unpacker *by, void *arg, const char *dir, struct tar_result *result)
{
	const struct unpacking u = {by, arg, dir};
	*result = (struct tar_result){0, 0, NULL, NULL};
	struct beside fresh = {"", -1}, aside = {"", -1};
	AUTO_FD int root = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct stat before;
	if (root < 0 || fstat(root, &before) < 0)
		return say(result, -errno, NULL, NULL);
	int err = replace(&u, root, &fresh, &aside, result);
	if (!err)
		return 0;
	if (beside_drop(root, &fresh) < 0 || beside_drop(root, &aside) < 0)
		(void)say(result, err, NULL, "what was unpacked so far is left in .sandboxd-*");
	(void)say(result, err, NULL, NULL);
	struct timespec times[2] = {before.st_atim, before.st_mtim};
	(void)futimens(root, times); /* of a directory of another's they are what they are */
	return err;
}

struct tar_source {
	struct server *server;
	int fd;
};

static int unpack_tar(void *arg, int root, const char *where, struct tar_result *result)
{
	const struct tar_source *source = arg;
	(void)where;
	return tar_unpack_at(source->server, source->fd, root, result);
}

int tar_replace(struct server *server, int fd, const char *dir, struct tar_result *result)
{
	struct tar_source source = {server, fd};
	return tar_replace_by(unpack_tar, &source, dir, result);
}
