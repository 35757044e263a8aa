/*
 * Signalling a tree of processes without ever hitting a stranger. A set holds a pidfd of every process that was found to
 * belong to the tree; a pid alone is never trusted, since the kernel gives numbers out again.
 */
#ifndef SANDBOXD_PROC_H
#define SANDBOXD_PROC_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct proc_held {
	pid_t pid;
	pid_t session;
	pid_t group;              /* when it was last listed */
	unsigned long long start; /* in ticks since the boot: with the pid it names one process */
	int fd;
	int signalled; /* the last signal this set sent it */
};

struct proc_set {
	struct proc_held *held;
	size_t count, capacity;
};

void proc_set_release(struct proc_set *set);

/*
 * Sends sig to a command's processes: its group, its session, and all descendants of those and of
 * what the set holds from earlier. leader_here: the leader has not been reaped (and is not while this runs), so
 * that its number is still its own; otherwise the number counts only while a member of its session is held and lives.
 * SIGKILL goes round until no new process is found.
 */
void proc_signal_tree(struct proc_set *set, pid_t leader, bool leader_here, int sig);
/* A process by number and start. */
struct proc_name {
	pid_t pid;
	unsigned long long start;
};
/* The children of a process that is not reaped meanwhile, in a new array. The count or a negative errno. */
ssize_t proc_children(pid_t parent, struct proc_name **out);
/*
 * Sends sig, once to each, to what the set holds and to all below `root` (0: none), but for the `older` children of root and
 * what descends from them; the members of group `told` (0: none) have it already. root itself is not signalled, and is not reaped meanwhile.
 */
void proc_signal_below(struct proc_set *set, pid_t root, const struct proc_name *older,
	size_t older_count, int sig, pid_t told);
/* Adds those that still live to the set. */
void proc_hold(struct proc_set *set, const struct proc_name *names, size_t count);
/* Does any held process still live (zombies do not)? */
bool proc_set_alive(struct proc_set *set);

/* Sends sig to all descendants of this process. Returns how many there were. */
size_t proc_signal_descendants(int sig);

#endif
