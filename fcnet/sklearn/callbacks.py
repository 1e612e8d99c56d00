"""Call scikit-learn's callbacks at each epoch, if the installed version has that protocol."""

from __future__ import annotations

from typing import Any

from fcnet.sklearn.fitted import Fitted

try:
    from sklearn.callback import CallbackSupportMixin as CallbackSupport
except ImportError:  # scikit-learn has it from 1.9 on

    class CallbackSupport:  # type: ignore[no-redef]
        """Stand in for scikit-learn's class, in versions without it."""

        def _init_callback_context(self, **_: Any) -> None:
            return None


class Followed:
    """Follow one fit for callbacks: a task with an epoch, or an iteration, after the other in it."""

    def __init__(self, estimator: Any, most: int, X: Any, y: Any, metadata: dict[str, Any]) -> None:
        """Report to the callbacks that a fit of up to so many epochs begins, with the caller's own X and y."""
        self._estimator = estimator
        self._task_arguments = {"estimator": estimator, "X": X, "y": y, "metadata": metadata}
        self._fit = estimator._init_callback_context(max_subtasks=most)
        self._epoch: Any = None
        #: Whether anybody looks: if not, nothing need be done after each epoch.
        self.watched = self._fit is not None and bool(getattr(estimator, "_skl_callbacks", []))
        if self.watched:
            self._fit.call_on_fit_task_begin(**self._task_arguments)

    def begin_epoch(self) -> None:
        """Report that an epoch begins."""
        if self.watched:
            self._epoch = self._fit.subcontext(task_name="epoch")
            self._epoch.call_on_fit_task_begin(**self._task_arguments, reconstruction_attributes=self._so_far)

    def end_epoch(self) -> bool:
        """Report that it has ended; return whether a callback asks to stop."""
        if self._epoch is None:
            return False
        epoch, self._epoch = self._epoch, None
        return bool(epoch.call_on_fit_task_end(**self._task_arguments, reconstruction_attributes=self._so_far))

    def end(self) -> None:
        """Report that the fit has ended, and an epoch that came to nothing."""
        if self._epoch is not None:
            self._epoch.call_on_fit_task_end(estimator=self._estimator)
        if self.watched:
            self._fit.call_on_fit_task_end(**self._task_arguments, reconstruction_attributes=dict)

    def _so_far(self) -> dict[str, Any]:
        """Return what makes an estimator of this one that is fitted as far as it has come."""
        return {"_fitted": Fitted(self._estimator._fitted.model.copy()), **self._estimator._parameters()}
