/*
 * Walks /proc and signals through pidfds; see proc.h. Owns nothing but what a set holds. The caller
 * sees to it that the leader is not reaped meanwhile.
 */
#include "proc.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cleanup.h"

enum { ROUNDS = 16 };

struct entry {
	pid_t pid, parent, group, session;
	unsigned long long start;
	bool member;
};

struct listing {
	struct entry *entries;
	size_t count, capacity;
};

static void listing_release(struct listing *l)
{
	free(l->entries);
}

static int open_pidfd(pid_t pid)
{
	return (int)syscall(SYS_pidfd_open, pid, 0u);
}

static int send_pidfd(int fd, int sig)
{
	return (int)syscall(SYS_pidfd_send_signal, fd, sig, NULL, 0u);
}

static bool entry_read(int proc, pid_t pid, struct entry *e)
{
	char path[64], text[1024];
	snprintf(path, sizeof path, "%d/stat", (int)pid);
	AUTO_FD int fd = openat(proc, path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
	if (n <= 0)
		return false;
	text[n] = '\0';
	/* The name in brackets may hold anything, brackets too: the last one ends it. */
	const char *rest = strrchr(text, ')');
	char state;
	int parent, group, session;
	if (!rest ||
		sscanf(rest + 1,
			" %c %d %d %d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu", &state,
			&parent, &group, &session, &e->start) != 5)
		return false;
	/* What is dead needs no signal; a zombie's children have another parent already. */
	if (state == 'Z' || state == 'X')
		return false;
	e->pid = pid;
	e->parent = parent;
	e->group = group;
	e->session = session;
	e->member = false;
	return true;
}

static int list_all(struct listing *l)
{
	DIR *dir = opendir("/proc");
	if (!dir)
		return -errno;
	int err = 0;
	for (struct dirent *d; !err && (d = readdir(dir));) {
		struct entry e;
		char *end;
		long pid = strtol(d->d_name, &end, 10);
		if (pid <= 0 || *end || !entry_read(dirfd(dir), (pid_t)pid, &e))
			continue;
		if (l->count == l->capacity) {
			size_t capacity = l->capacity ? l->capacity * 2 : 64;
			struct entry *entries = realloc(l->entries, capacity * sizeof *entries);
			if (!entries) {
				err = -ENOMEM;
				break;
			}
			l->entries = entries;
			l->capacity = capacity;
		}
		l->entries[l->count++] = e;
	}
	closedir(dir);
	return err;
}

static struct entry *listing_find(struct listing *l, pid_t pid)
{
	for (size_t i = 0; i < l->count; i++)
		if (l->entries[i].pid == pid)
			return &l->entries[i];
	return NULL;
}

/* Marks the children of members and of root (0: none), their children, and so on. */
static void mark_descendants(struct listing *l, pid_t root)
{
	for (bool found = true; found;) {
		found = false;
		for (size_t i = 0; i < l->count; i++) {
			struct entry *e = &l->entries[i];
			if (e->member || e->pid == getpid())
				continue;
			struct entry *parent = listing_find(l, e->parent);
			if ((root && e->parent == root) || (parent && parent->member)) {
				e->member = true;
				found = true;
			}
		}
	}
}

static bool held_alive(const struct proc_held *h)
{
	/* A pidfd is readable once its process has ended, reaped or not. */
	struct pollfd p = {.fd = h->fd, .events = POLLIN};
	return poll(&p, 1, 0) == 0;
}

bool proc_set_alive(struct proc_set *set)
{
	for (size_t i = 0; i < set->count; i++)
		if (held_alive(&set->held[i]))
			return true;
	return false;
}

void proc_set_release(struct proc_set *set)
{
	for (size_t i = 0; i < set->count; i++)
		close(set->held[i].fd);
	free(set->held);
	*set = (struct proc_set){NULL, 0, 0};
}

static struct proc_held *held_find(struct proc_set *set, const struct entry *e)
{
	for (size_t i = 0; i < set->count; i++)
		if (set->held[i].pid == e->pid && set->held[i].start == e->start)
			return &set->held[i];
	return NULL;
}

static struct proc_held *hold(struct proc_set *set, const struct entry *e)
{
	if (set->count == set->capacity) {
		size_t capacity = set->capacity ? set->capacity * 2 : 8;
		struct proc_held *held = realloc(set->held, capacity * sizeof *held);
		if (!held)
			return NULL;
		set->held = held;
		set->capacity = capacity;
	}
	int fd = open_pidfd(e->pid);
	if (fd < 0)
		return NULL;
	/* Between the listing and the pidfd the number may have gone to another: the start time tells. */
	AUTO_FD int proc = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct entry again;
	if (proc < 0 || !entry_read(proc, e->pid, &again) || again.start != e->start) {
		close(fd);
		return NULL;
	}
	struct proc_held *h = &set->held[set->count++];
	*h = (struct proc_held){.pid = e->pid, .session = e->session, .start = e->start, .fd = fd};
	return h;
}

static void mark_members(struct listing *l, struct proc_set *set, pid_t leader, bool leader_here)
{
	bool number_ours = leader_here;
	for (size_t i = 0; i < set->count; i++) {
		struct proc_held *h = &set->held[i];
		if (!held_alive(h))
			continue;
		/* A session's number is not given out again while it has a member. */
		number_ours = number_ours || h->session == leader;
		struct entry *e = listing_find(l, h->pid);
		if (e && e->start == h->start)
			e->member = true;
	}
	if (number_ours)
		for (size_t i = 0; i < l->count; i++) {
			struct entry *e = &l->entries[i];
			if (e->session == leader || e->group == leader || (leader_here && e->pid == leader))
				e->member = true;
		}
	mark_descendants(l, 0);
}

/* Adds what is found to the set. True: there was something new. */
static bool hold_members(struct proc_set *set, pid_t leader, bool leader_here)
{
	__attribute__((cleanup(listing_release))) struct listing l = {NULL, 0, 0};
	bool news = false;
	if (list_all(&l) < 0)
		return false;
	mark_members(&l, set, leader, leader_here);
	for (size_t i = 0; i < l.count; i++) {
		struct entry *e = &l.entries[i];
		if (!e->member)
			continue;
		struct proc_held *h = held_find(set, e);
		if (!h) {
			h = hold(set, e);
			news = news || h;
		}
		if (h)
			h->group = e->group;
	}
	return news;
}

void proc_signal_tree(struct proc_set *set, pid_t leader, bool leader_here, int sig)
{
	for (size_t i = 0; i < set->count; i++)
		set->held[i].signalled = 0;
	/*
	 * All are held before the first is signalled: the death of one gives its children another parent. Only
	 * SIGKILL goes round until nothing new is found: after any other signal a handler may start a
	 * program to clean up, which is to run; what a fork hid from the first round is left to the KILL that follows.
	 */
	for (int round = 0; round < (sig == SIGKILL ? ROUNDS : 1); round++) {
		bool news = hold_members(set, leader, leader_here);
		/* The group at once, which no fork escapes; nobody gets the signal twice. */
		if (round == 0 && leader_here)
			kill(-leader, sig);
		for (size_t i = 0; i < set->count; i++) {
			struct proc_held *h = &set->held[i];
			if (h->signalled == sig)
				continue;
			h->signalled = sig;
			if (!leader_here || h->group != leader)
				send_pidfd(h->fd, sig);
		}
		if (!news)
			return;
	}
}

/* The kernel's own list of children, where it has one: no walk through all of /proc. */
static FILE *open_children(pid_t parent)
{
	char path[64];
	snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)parent, (int)parent);
	return fopen(path, "re");
}

static int names_add(struct proc_name **names, size_t *count, const struct entry *e)
{
	struct proc_name *more = realloc(*names, (*count + 1) * sizeof *more);
	if (!more)
		return -ENOMEM;
	*names = more;
	more[(*count)++] = (struct proc_name){.pid = e->pid, .start = e->start};
	return 0;
}

ssize_t proc_children(pid_t parent, struct proc_name **out)
{
	AUTO_FREE struct proc_name *names = NULL;
	__attribute__((cleanup(listing_release))) struct listing l = {NULL, 0, 0};
	size_t count = 0;
	int err = 0;
	FILE *f = open_children(parent);
	if (f) {
		AUTO_FD int proc = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		struct entry e;
		int pid;
		while (!err && proc >= 0 && fscanf(f, "%d", &pid) == 1)
			if (entry_read(proc, pid, &e) && e.parent == parent)
				err = names_add(&names, &count, &e);
		fclose(f);
	} else {
		err = list_all(&l);
		for (size_t i = 0; !err && i < l.count; i++)
			if (l.entries[i].parent == parent)
				err = names_add(&names, &count, &l.entries[i]);
	}
	if (err)
		return err;
	*out = steal(names);
	return (ssize_t)count;
}

void proc_hold(struct proc_set *set, const struct proc_name *names, size_t count)
{
	AUTO_FD int proc = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct entry e;
	for (size_t i = 0; proc >= 0 && i < count; i++)
		if (entry_read(proc, names[i].pid, &e) && e.start == names[i].start && !held_find(set, &e))
			(void)hold(set, &e); /* one that has gone meanwhile need not be held */
}

static bool is_named(const struct proc_name *names, size_t count, const struct entry *e)
{
	for (size_t i = 0; i < count; i++)
		if (names[i].pid == e->pid && names[i].start == e->start)
			return true;
	return false;
}

/* Adds what is found below root to the set. True: there was something new. */
static bool hold_below(
	struct proc_set *set, pid_t root, const struct proc_name *older, size_t older_count)
{
	__attribute__((cleanup(listing_release))) struct listing l = {NULL, 0, 0};
	bool news = false;
	if (list_all(&l) < 0)
		return false;
	for (size_t i = 0; i < set->count; i++) {
		struct entry *e = held_alive(&set->held[i]) ? listing_find(&l, set->held[i].pid) : NULL;
		if (e && e->start == set->held[i].start)
			e->member = true;
	}
	for (size_t i = 0; root && i < l.count; i++)
		if (l.entries[i].parent == root && !is_named(older, older_count, &l.entries[i]))
			l.entries[i].member = true;
	mark_descendants(&l, 0);
	for (size_t i = 0; i < l.count; i++) {
		struct proc_held *h = l.entries[i].member ? held_find(set, &l.entries[i]) : NULL;
		if (l.entries[i].member && !h) {
			h = hold(set, &l.entries[i]);
			news = news || h;
		}
		if (h)
			h->group = l.entries[i].group;
	}
	return news;
}

void proc_signal_below(struct proc_set *set, pid_t root, const struct proc_name *older,
	size_t older_count, int sig, pid_t told)
{
	for (int round = 0; round < (sig == SIGKILL ? ROUNDS : 1); round++) {
		bool news = hold_below(set, root, older, older_count);
		for (size_t i = 0; i < set->count; i++) {
			struct proc_held *h = &set->held[i];
			if (h->signalled == sig)
				continue;
			h->signalled = sig;
			if (!told || h->group != told)
				send_pidfd(h->fd, sig);
		}
		if (!news)
			return;
	}
}

size_t proc_signal_descendants(int sig)
{
	__attribute__((cleanup(listing_release))) struct listing l = {NULL, 0, 0};
	if (list_all(&l) < 0)
		return 0;
	mark_descendants(&l, getpid());
	size_t count = 0;
	for (size_t i = 0; i < l.count; i++) {
		if (!l.entries[i].member)
			continue;
		struct proc_set one = {NULL, 0, 0};
		struct proc_held *h = hold(&one, &l.entries[i]);
		if (h) {
			send_pidfd(h->fd, sig);
			count++;
		}
		proc_set_release(&one);
	}
	return count;
}
