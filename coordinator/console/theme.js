// Before the first paint: what somebody has chosen, or what the system says.
(function () {
  try {
    const theme = localStorage.getItem("coordinator.theme");
    if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
    const language = localStorage.getItem("coordinator.language");
    const isChinese = (language || navigator.language || "").toLowerCase().startsWith("zh");
    document.documentElement.lang = isChinese ? "zh-CN" : "en";
  } catch (error) {
    // No storage: the system's choice stands.
  }
})();
