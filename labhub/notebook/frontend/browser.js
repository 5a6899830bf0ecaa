import "./common.css"; export default {};
